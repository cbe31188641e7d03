"""Searches: studies and series from the catalogue, instances from the indexes of the series that may hold them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from storage import levels
from storage.attributes import json_object, parse_object
from storage.bucket import Bucket, ObjectInfo
from storage.catalogue.base import Catalogue, SeriesSummary
from storage.catalogue.matching import Matcher, is_universal
from storage.catalogue.query import AnyOf, Condition, Level, Page, Query, Tag, Text
from storage.catalogue.rows import tag_names
from storage.catalogue.sync import unreadable
from storage.dicom.vr import standard_vr
from storage.errors import NotFound, SeriesNotFound, StorageError, StorageUnavailable
from storage.indexing.sharing import SharedIndexes
from storage.indexing.shelf import IndexShelf
from storage.indexing.summary import Summariser
from storage.keys import SeriesKey, SeriesObject, is_path_uid, parse_object_key, parse_shared_index_key, study_prefix
from storage.levels import INSTANCE_TAGS, level_of
from storage.links import ROOT
from storage.series_index.reader import SeriesIndex
from storage.together import together

STUDY_UID: Tag = 0x0020000D
MOST_SERIES = 2000
"""Series that one instance search opens; behind them the count of remaining matches is a lower bound, and says so."""
_PER_INSTANCE = INSTANCE_TAGS | {0x00080005, 0x00080056, 0x00081190, 0x00083002, 0x0020000D, 0x0020000E}
_NOT_OF_INSTANCES = frozenset(
    {
        levels.SPECIFIC_CHARACTER_SET,
        levels.RETRIEVE_URL,
        levels.INSTANCE_AVAILABILITY,
        levels.MODALITIES_IN_STUDY,
        levels.SOP_CLASSES_IN_STUDY,
        levels.NUMBER_OF_STUDY_RELATED_SERIES,
        levels.NUMBER_OF_STUDY_RELATED_INSTANCES,
        levels.NUMBER_OF_SERIES_RELATED_INSTANCES,
    }
)
"""Attributes that this server computes: the catalogue matches those that can be matched at all."""
_LOOKED_OVER_AT_ONCE = 8
"""Series of a study that the catalogue lacks: one request each, and what metadata.json takes in memory."""
_BULK_VRS = (b'"OB"', b'"OD"', b'"OF"', b'"OL"', b'"OV"', b'"OW"', b'"UN"')


class Searches:
    """Answers searches over one archive."""

    def __init__(
        self,
        bucket: Bucket,
        catalogue: Catalogue,
        shelf: IndexShelf,
        summariser: Summariser,
        shared: SharedIndexes | None = None,
    ) -> None:
        """`shared`: indexes of other replicas, which tell what a series holds in fewer bytes than its metadata.json."""
        self._bucket = bucket
        self._catalogue = catalogue
        self._shelf = shelf
        self._summariser = summariser
        self._shared = shared
        self._is_complete = False

    async def search(self, query: Query) -> Page:
        """Answer a search (PS3.18 §10.6); rows have rootless links.

        Raises:
            StorageUnavailable: the catalogue is too slow for this search, or a bucket does not answer.
        """
        if query.series_uid is None:  # a series named by its path needs no catalogue
            await self._look_up_exact(query)
        page = await self._instances(query) if query.level is Level.INSTANCE else await self._catalogue.search(query)
        self._is_complete = self._is_complete or (await self._catalogue.status()).complete  # and it stays so
        if not self._is_complete:
            page = replace(
                page, warnings=(*page.warnings, "The catalogue is still being filled: there may be more matches later.")
            )
        return page

    async def series_of_study(self, study_uid: str) -> list[SeriesKey]:
        """The series of a study in the order of their numbers, found in the bucket if the catalogue lacks them."""
        keys = await self._catalogue.series_of_study(study_uid)
        if not keys and await self._look_up_study(study_uid):
            keys = await self._catalogue.series_of_study(study_uid)
        return keys

    async def _look_up_exact(self, query: Query) -> None:
        """Deep links work before the sync has come by: a study named exactly is looked for in the bucket."""
        if query.study_uid is not None:
            named: Sequence[str] = (query.study_uid,)
        else:
            named = [uid for condition in query.conditions for uid in _exact_study_uids(condition)]
        for study_uid in named[:_MOST_LOOK_UPS]:
            if is_path_uid(study_uid) and not await self._catalogue.contains_study(study_uid):
                await self._look_up_study(study_uid)

    async def _look_up_study(self, study_uid: str) -> bool:
        """Put a study into the catalogue by listing its prefix. Returns whether there is one."""
        listed, copies = await together((self._listed(study_uid), self._copies(study_uid)))
        found: dict[SeriesKey, dict[SeriesObject, ObjectInfo]] = {}
        for info in listed:
            parsed = parse_object_key(info.key)
            if parsed is not None and parsed[1] in (SeriesObject.METADATA, SeriesObject.TAR):
                found.setdefault(parsed[0], {})[parsed[1]] = info
        shared = {parse_shared_index_key(copy.key): copy for copy in copies}
        gate = asyncio.Semaphore(_LOOKED_OVER_AT_ONCE)
        summaries = await together(
            self._summary(key, objects[SeriesObject.METADATA], objects.get(SeriesObject.TAR), shared.get(key), gate)
            for key, objects in found.items()
            if SeriesObject.METADATA in objects
        )
        told = [summary for summary in summaries if summary is not None]
        if told:
            await self._catalogue.upsert(told)
        return bool(told)

    async def _listed(self, study_uid: str) -> list[ObjectInfo]:
        return [info async for info in self._bucket.list(study_prefix(study_uid))]

    async def _copies(self, study_uid: str) -> list[ObjectInfo]:
        return await self._shared.find_study(study_uid) if self._shared is not None else []

    async def _summary(
        self,
        key: SeriesKey,
        metadata: ObjectInfo,
        tar: ObjectInfo | None,
        copy: ObjectInfo | None,
        gate: asyncio.Semaphore,
    ) -> SeriesSummary | None:
        """What the catalogue is to know of a series; None if it was removed since it was listed.

        Raises StorageUnavailable: it cannot be read now, so nobody may say what the study holds.
        """
        async with gate:
            versions = metadata.version, tar.version if tar is not None else None
            if copy is not None and self._shared is not None:
                summary = await self._shared.summary(copy, key, versions)
                if summary is not None:
                    return summary
            try:
                return await self._summariser(key, metadata, tar)
            except NotFound:
                return None
            except StorageUnavailable:
                raise
            except StorageError as error:
                return unreadable(key, *versions, str(error))

    async def _instances(self, query: Query) -> Page:
        own = [condition for condition in query.conditions if _is_own(condition) and _is_held(condition.path[0])]
        matcher = Matcher(own, query.intervals, fuzzy=query.fuzzy) if own or query.intervals else None
        asked = _asked(query)
        is_plain = not asked and not query.include_all and query.series_uid is not None
        rows: list[bytes] = []
        matched = opened = 0
        warnings = _not_matched(query)
        async for key in self._candidates(query):
            if opened == MOST_SERIES:
                warnings += ("The search was cut short: name a study or series to see all matches.",)
                break
            opened += 1
            try:
                index = await self._shelf.get(key, with_metadata=_needs_metadata(query))
            except SeriesNotFound:
                continue  # gone since the catalogue saw it
            hits = _hits(index, matcher)
            wanted = hits[max(0, query.offset - matched) : max(0, query.offset + query.limit - matched)]
            matched += len(hits)
            if isinstance(wanted, range) and is_plain:
                rows.extend(index.rows(wanted))
            else:
                rows.extend(_row(index, ordinal, query, asked) for ordinal in wanted)
        return Page(rows, max(0, matched - query.offset - len(rows)), warnings)

    async def _candidates(self, query: Query) -> AsyncIterator[SeriesKey]:
        is_narrowed = any(not _is_own(condition) for condition in query.conditions)
        if query.study_uid is not None and query.series_uid is not None and not is_narrowed:
            if not (is_path_uid(query.study_uid) and is_path_uid(query.series_uid)):
                return
            yield SeriesKey(query.study_uid, query.series_uid)
            return
        async for keys in self._catalogue.narrow(query):
            for key in keys:
                yield key


_MOST_LOOK_UPS = 16


def _exact_study_uids(condition: Condition) -> Sequence[str]:
    if condition.path != (STUDY_UID,):
        return ()
    if isinstance(condition.match, AnyOf):
        return condition.match.values
    if isinstance(condition.match, Text) and not condition.match.is_wildcard:
        return (condition.match.pattern,)
    return ()


def _is_own(condition: Condition) -> bool:
    """Whether a condition must be tested on the instance; those of study and series were applied by the catalogue."""
    tag = condition.path[0]
    return level_of(tag) in (Level.INSTANCE, None) and tag not in _NOT_OF_INSTANCES


def _is_held(tag: Tag) -> bool:
    """Whether instance rows can be tested for an attribute without taking the metadata of every instance apart."""
    return level_of(tag) is Level.INSTANCE or tag in _PER_INSTANCE


def _not_matched(query: Query) -> tuple[str, ...]:
    """The warning about keys that filter nothing: PS3.4 §C.2.2.1.3 lets optional keys be matched by everything."""
    tags = {
        condition.path[0] for condition in query.conditions if not is_universal(condition.match) and _is_own(condition)
    }
    unheld = [tag for tag in sorted(tags) if not _is_held(tag)]
    return (f"Not matched, because the search index does not hold them: {tag_names(unheld)}.",) if unheld else ()


def _needs_metadata(query: Query) -> bool:
    keys = [path[0] for path in query.include] + [condition.path[0] for condition in query.conditions]
    return query.include_all or any(level_of(tag) is None and tag not in _PER_INSTANCE for tag in keys)


def _hits(index: SeriesIndex, matcher: Matcher | None) -> Sequence[int]:
    """The ordinals of the instances that match."""
    ordinals = range(index.header.count)
    if matcher is None:
        return ordinals
    shared = parse_object(index.header.shared)
    return [ordinal for ordinal in ordinals if matcher.matches({**shared, **_known(index, ordinal)})]


def _known(index: SeriesIndex, ordinal: int) -> dict[int, bytes]:
    return {**parse_object(index.kept(ordinal)), **parse_object(index.row(ordinal))}


def _asked(query: Query) -> set[Tag]:
    """Attributes that rows hold beyond their usual ones: fields that were asked for, and match keys."""
    asked = {path[0] for path in query.include} | {condition.path[0] for condition in query.conditions}
    asked.update(tag for interval in query.intervals for tag in (interval.date, interval.time))
    return asked


def _row(index: SeriesIndex, ordinal: int, query: Query, asked: set[Tag]) -> bytes:
    """One row: what lies in the index, and what was asked beyond that."""
    shared = parse_object(index.header.shared)
    attributes = {**_inherited(query, shared), **parse_object(index.row(ordinal))}
    known = {**shared, **parse_object(index.kept(ordinal))}
    if query.include_all:
        attributes = {**known, **_without_bulk(_all_attributes(index, ordinal)), **attributes}
    else:
        missing = asked - attributes.keys() - known.keys()
        if index.header.has_metadata and any(level_of(tag) is None for tag in missing):
            known = {**_all_attributes(index, ordinal), **known}
        attributes = {**{tag: known[tag] for tag in asked if tag in known}, **attributes}
    return json_object(attributes)


def _inherited(query: Query, shared: dict[int, bytes]) -> dict[int, bytes]:
    """What instance rows tell of their series, and of their study where the path names none (PS3.18 §10.6.3.3.3).

    What is counted over a whole study or series is left to searches at those levels.
    """
    required: tuple[Tag, ...] = ()
    known: tuple[Tag, ...] = ()
    if query.series_uid is None:
        required, known = levels.SERIES_RETURN_REQUIRED, levels.SERIES_RETURN_KNOWN
    if query.study_uid is None:
        required, known = required + levels.STUDY_RETURN_REQUIRED, known + levels.STUDY_RETURN_KNOWN
    told = {tag: shared.get(tag) or b'{"vr":"%b"}' % standard_vr(tag).encode() for tag in required}
    return told | {tag: shared[tag] for tag in known if tag in shared}


def _all_attributes(index: SeriesIndex, ordinal: int) -> dict[int, bytes]:
    """Everything metadata tells of an instance, links rootless as in all rows."""
    stored, rootless = (b'"BulkDataURI":"%b/' % root.encode() for root in (index.header.root, ROOT))
    return parse_object(index.instance_json(ordinal).replace(stored, rootless))


def _without_bulk(attributes: dict[int, bytes]) -> dict[int, bytes]:
    """Attributes that are small enough for a search answer: neither sequences' depths nor binary values are cut."""
    return {tag: value for tag, value in attributes.items() if value[6:10] not in _BULK_VRS}
