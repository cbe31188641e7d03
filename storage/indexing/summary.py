"""What the catalogue is told of a series: from its deep index if there is one, else from a look at metadata.json."""

import asyncio
from typing import Protocol

from storage.attributes import parse_object
from storage.bucket import Bucket, ObjectInfo
from storage.catalogue.base import SeriesSummary
from storage.cod.attributes import normalise
from storage.cod.metadata import SeriesMetadata, parse_series_metadata
from storage.deid import UidMap
from storage.errors import InstanceUnreadable
from storage.indexing.draft import kept_of
from storage.instance_rows import shared_attributes, sop_classes
from storage.keys import SeriesKey
from storage.metadata_modes import sample_ordinals
from storage.series_index.layout import Header
from storage.series_index.reader import SeriesIndex, UnusableIndex
from storage.state import StateFolder

EMPTY = "metadata.json lists no instance"
"""A writer that broke off leaves such series: there is nothing in them that a search could find."""


class SharedSummaries(Protocol):
    """See `storage.indexing.sharing`."""

    async def summary_of(self, key: SeriesKey, versions: tuple[str, str | None]) -> SeriesSummary | None:
        """What a shared index of these versions tells; None if there is none."""


class Summariser:
    """Summaries of the series of one datastore."""

    def __init__(self, bucket: Bucket, state: StateFolder, shared: "SharedSummaries | None" = None) -> None:
        """`shared`: indexes of other replicas, which tell the same in fewer bytes."""
        self._bucket = bucket
        self._state = state
        self._shared = shared

    async def __call__(self, key: SeriesKey, metadata: ObjectInfo, tar: ObjectInfo | None) -> SeriesSummary:
        """Look a series over: one request, and at most three of its entries are taken apart.

        Raises:
            CorruptSeries, StorageUnavailable: metadata.json cannot be read.
        """
        tar_version = tar.version if tar is not None else None
        try:
            index = SeriesIndex(self._state.series_index(key))
            if (index.header.metadata_version, index.header.tar_version) == (metadata.version, tar_version):
                return summary_of(index)
        except UnusableIndex:
            pass
        if self._shared is not None:
            summary = await self._shared.summary_of(key, (metadata.version, tar_version))
            if summary is not None:
                return summary
        read = await self._bucket.read(key.metadata, version=metadata.version)
        return await asyncio.to_thread(self._look_over, bytes(read.data), key, metadata.version, tar_version)

    def _look_over(self, data: bytes, key: SeriesKey, metadata_version: str, tar_version: str | None) -> SeriesSummary:
        parsed = parse_series_metadata(data, key)
        kepts = self._samples(parsed)
        return SeriesSummary(
            key=key,
            metadata_version=metadata_version,
            tar_version=tar_version,
            is_deid=parsed.is_deid,
            instance_count=len(parsed.entries),
            sop_class_uids=tuple(sorted(sop_classes(kepts))),
            attributes=shared_attributes(kepts, key),
            depth="quick",
            problem=None if parsed.entries else EMPTY,
        )

    def _samples(self, metadata: SeriesMetadata) -> list[dict[int, bytes]]:
        uid_map = UidMap({}, self._state.uid_key()) if metadata.is_deid else None
        entries = list(metadata.entries.values())
        samples = []
        for ordinal in sample_ordinals(len(entries)):
            try:
                normalised = normalise(entries[ordinal].attributes_json(), bulkdata_base="")
            except InstanceUnreadable:
                continue
            samples.append(normalised.kept if uid_map is None else kept_of(uid_map.redact(normalised.json)))
        return samples


def summary_of(index: SeriesIndex) -> SeriesSummary:
    """The summary that an index gives."""
    return summary_of_header(index.header)


def summary_of_header(header: Header) -> SeriesSummary:
    """The same from its header alone, as it is read from an index far away."""
    return SeriesSummary(
        key=SeriesKey(header.study_uid, header.series_uid),
        metadata_version=header.metadata_version,
        tar_version=header.tar_version,
        is_deid=header.is_deid,
        instance_count=header.count,
        sop_class_uids=tuple(header.sop_classes),
        attributes=parse_object(header.shared),
        depth=header.depth,
        problem=None if header.count else EMPTY,
    )
