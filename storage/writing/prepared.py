"""A change with everything that is made from it before bytes move."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.bucket.base import Bucket
from storage.cod.lock import Journal
from storage.cod.writing import PackedSeries
from storage.writing.change import Change
from storage.writing.document import pack_changed
from storage.writing.stored import StoredSeries
from storage.writing.survey import TarSurvey, survey_tar
from storage.writing.tar_plan import TarPlan, plan_tar


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A change, its tar as a plan, its metadata.json, and what the lock will say of it."""

    change: Change
    plan: TarPlan
    packed: PackedSeries
    journal: Journal


async def prepare(bucket: Bucket, stored: StoredSeries, change: Change) -> Prepared:
    """Plan a change of the tar; at most two small reads of it. Raises as `survey_tar` and `plan_tar`.

    Of a series that is rewritten nothing stays, so it may be as damaged as it likes.
    """
    survey = TarSurvey((), {}) if change.is_rewrite else await survey_tar(bucket, stored)
    plan = plan_tar(stored, survey, change)
    packed = await pack(bucket, stored, change, plan)
    return Prepared(change, plan, packed, Journal(stored.tar_version, plan.layout.size))


async def pack(bucket: Bucket, stored: StoredSeries, change: Change, plan: TarPlan | None) -> PackedSeries:
    """The new metadata.json; without a plan the tar stays."""

    def packed() -> PackedSeries:
        made = pack_changed(stored, change, plan, datastore_url=bucket.url, modified=datetime.now(UTC))
        made.check(stored.key)
        return made

    return await asyncio.to_thread(packed)
