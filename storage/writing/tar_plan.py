"""The new tar of a series as a plan: which runs of the old one stay, where everything comes to lie. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from storage.cod.entry import Entry
from storage.cod.tar import BLOCK_BYTES, TarLayout, TarMember, lay_out, lead, member_name
from storage.errors import CorruptSeries
from storage.ranges import ByteRange
from storage.writing.change import Change, NewInstance
from storage.writing.stored import StoredSeries
from storage.writing.survey import TarSurvey

MOST_LEADS = 64
"""So many lengths of a lead are tried; each takes away at most as many as there are instances of one size and place."""


@dataclass(frozen=True, slots=True)
class TarPlan:
    """A tar to be made: its lead, the runs of the present tar that come first, then the new members."""

    lead: bytes
    kept: tuple[ByteRange, ...]
    """Of the present tar, in the order in which they follow."""
    stays: tuple[TarMember, ...]
    """The members in `kept` that metadata names, where they will lie; in the order of its entries."""
    added: tuple[tuple[NewInstance, TarMember], ...]
    layout: TarLayout
    """All of them, and the size of the new tar."""


def plan_tar(stored: StoredSeries, survey: TarSurvey, change: Change) -> TarPlan:
    """Place everything that stays, then what is added: nothing exactly where the old metadata has other bytes of its UID.

    Between the new tar and the new metadata.json a reader holds the old offsets against the new bytes. It serves what
    proves to be the instance that it looks for; so other bytes of the same UID must not lie where that one is looked for.
    A lead moves what follows. It is needed in a rewrite, and where the last instances of a tar are replaced.

    Raises:
        CorruptSeries: the members of two instances overlap.
    """
    kept = () if change.is_rewrite else tuple(_kept(survey, change))
    for blocks in range(MOST_LEADS):
        lead_bytes = lead((blocks + 1) * BLOCK_BYTES) if blocks else b""
        if blocks == 1:
            kept = tuple(_without(kept, (survey.lead,)))  # it gives way to the new one
        stays = () if change.is_rewrite else _stays(stored, survey, change, kept, len(lead_bytes))
        plan = _plan(lead_bytes, kept, stays, change.add)
        if not any(_is_mistakable(stored.entries.get(new.instance_uid), new, member) for new, member in plan.added):
            return plan
    raise CorruptSeries(f"{stored.key}: no layout keeps the new instances apart from the old ones")


def _kept(survey: TarSurvey, change: Change) -> Iterable[ByteRange]:
    gone = sorted((survey.whole[uid] for uid in change.remove), key=lambda each: each.start)
    return _without(survey.extents, gone)


def _stays(
    stored: StoredSeries, survey: TarSurvey, change: Change, kept: Sequence[ByteRange], begin: int
) -> tuple[TarMember, ...]:
    """Where the members that stay will lie, behind `begin` bytes of a lead."""
    stays = []
    runs = _Runs(kept)
    for uid, entry in stored.entries.items():
        if uid not in change.remove:
            shift = runs.shift(survey.whole[uid])
            if shift is None:
                raise CorruptSeries(f"{stored.key}: instance {uid} overlaps another in the tar")
            mtime = stored.tar.updated if stored.tar is not None else 0.0
            stays.append(_member(entry, survey.whole[uid], begin + shift, mtime))
    return tuple(stays)


def _is_mistakable(old: Entry | None, new: NewInstance, member: TarMember) -> bool:
    return old is not None and old.start == member.start and (old.crc32c, old.size) != (new.crc32c, new.size)


def _plan(
    lead_bytes: bytes, kept: tuple[ByteRange, ...], stays: tuple[TarMember, ...], added: Sequence[NewInstance]
) -> TarPlan:
    begin = len(lead_bytes) + sum(each.length for each in kept)
    layout = lay_out([(each.instance_uid, each.size, each.mtime) for each in added], begin=begin)
    return TarPlan(
        lead_bytes,
        kept,
        stays,
        tuple(zip(added, layout.members, strict=True)),
        TarLayout((*stays, *layout.members), layout.size, layout.data_stop),
    )


def _without(extents: Iterable[ByteRange], gone: Sequence[ByteRange]) -> Iterable[ByteRange]:
    """The extents less what is gone, cut into runs; both ascending. What does not lie in one extent cuts nothing."""
    number = 0
    for extent in extents:
        position = extent.start
        while number < len(gone) and gone[number].start < extent.stop:
            each = gone[number]
            number += 1
            if position <= each.start and each.stop <= extent.stop:
                if position < each.start:
                    yield ByteRange(position, each.start)
                position = each.stop
        if position < extent.stop:
            yield ByteRange(position, extent.stop)


class _Runs:
    """Runs of a tar, ascending, as they will follow one another."""

    def __init__(self, runs: Sequence[ByteRange]) -> None:
        self._runs = runs
        self._starts = [run.start for run in runs]
        self._positions = [0, *accumulate(run.length for run in runs)]

    def shift(self, whole: ByteRange) -> int | None:
        """How far a member moves; None if it does not lie in one of the runs."""
        number = bisect_right(self._starts, whole.start) - 1
        if number < 0 or whole.stop > self._runs[number].stop:
            return None
        return self._positions[number] - self._starts[number]


def _member(entry: Entry, whole: ByteRange, shift: int, mtime: float) -> TarMember:
    return TarMember(member_name(entry.instance_uid_key), whole.start + shift, entry.start + shift, entry.size, mtime)
