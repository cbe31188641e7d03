"""Files that stored instances stand for, and deleting them when it is proven that nothing is lost.

A file goes only if the series is whole and the file, read again at this moment, has the very bytes of every instance
that names it (or is the very file that the instance was transcoded from). Everything else stays and is reported.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import google_crc32c

from storage.bucket import BucketOptions, open_bucket
from storage.checking.findings import Finding
from storage.errors import NotFound, StorageError
from storage.ingest.sources import Place, SourceChanged
from storage.ingest.sources.files import FilePlace, opened
from storage.library.addresses import is_nested, is_remote, local_path, object_place, split
from storage.library.pending import Fingerprint


class Fate(StrEnum):
    """What became of one dependency."""

    DELETED = "deleted"
    DELETABLE = "deletable"
    """Would be deleted; this was a dry run."""
    ABSENT = "absent"
    """Is not there: it was deleted before, or was never there."""
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Dependency:
    """One file, and the instances that name it."""

    uri: str
    instance_uids: tuple[str, ...]
    fate: Fate
    reason: str = ""
    """Why it is kept."""


@dataclass(frozen=True, slots=True)
class DependencyReport:
    """What became of every dependency of a series."""

    is_dry_run: bool
    findings: tuple[Finding, ...]
    """What is wrong with the series. If anything is, nothing was deleted."""
    dependencies: tuple[Dependency, ...]

    def of(self, fate: Fate | str) -> tuple[str, ...]:
        """The addresses with this fate, `Fate.DELETED` or "deleted"."""
        return tuple(each.uri for each in self.dependencies if each.fate == fate)


class _Kept(Exception):
    """Why a dependency stays. It never leaves this module."""


async def judge_dependency(
    uri: str,
    named_by: Mapping[str, list[Fingerprint]],
    *,
    options: BucketOptions,
    is_dry_run: bool,
) -> Dependency:
    """Read one dependency, and delete it if it may go.

    Args:
        named_by: by UID of the instances that name it: size and checksum of what each has or was made from.
    """
    uids = tuple(named_by)
    try:
        place = await asyncio.to_thread(_place, uri, options)
        if place is None:
            return Dependency(uri, uids, Fate.ABSENT)
        fingerprint = await asyncio.to_thread(_fingerprint, place)
        for uid, known in named_by.items():
            if fingerprint not in known:
                raise _Kept(f"has other bytes than instance {uid}")
        if is_dry_run:
            return Dependency(uri, uids, Fate.DELETABLE)
        if isinstance(place, FilePlace):
            await asyncio.to_thread(_unlink, place)
        else:
            await _delete_object(uri, place.stamp, options)
    except _Kept as reason:
        return Dependency(uri, uids, Fate.KEPT, str(reason))
    except (StorageError, SourceChanged, OSError, ValueError) as error:
        return Dependency(uri, uids, Fate.KEPT, f"cannot be read or deleted: {error}")
    return Dependency(uri, uids, Fate.DELETED)


def _place(uri: str, options: BucketOptions) -> Place | None:
    """Where a dependency lies; None: nowhere. Raises as `judge_dependency` catches."""
    if is_nested(uri):
        raise _Kept("lies inside an archive, which is never rewritten")
    if is_remote(uri):
        try:
            return object_place(uri, options)
        except NotFound:
            return None
    path = local_path(uri)
    if not os.path.isabs(path):
        raise _Kept("a relative path: nobody can tell to which folder")
    if os.path.islink(path):
        raise _Kept("a link: only the link would go")
    try:
        with opened(path) as file:
            return FilePlace(path, path, file.state)
    except FileNotFoundError:
        return None


def _fingerprint(place: Place) -> Fingerprint:
    checksum = size = 0
    with place.open() as source:
        for chunk in source.chunks():
            checksum = google_crc32c.extend(checksum, bytes(chunk))
            size += len(chunk)
        source.check()
    return size, checksum


def _unlink(place: FilePlace) -> None:
    """Delete a file that is still the one that was read."""
    with opened(place.path) as file:
        file.expect(place.state)
        os.unlink(place.path)


async def _delete_object(uri: str, stamp: str, options: BucketOptions) -> None:
    """Delete an object that is still the version that was read; between the look and the deletion lie milliseconds."""
    root, key = split(uri)
    if (await asyncio.to_thread(object_place, uri, options)).stamp != stamp:
        raise _Kept("was replaced while it was being read")
    bucket = open_bucket(root, options=options)
    try:
        await bucket.delete(key)
    finally:
        await bucket.close()
