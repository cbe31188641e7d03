"""A series in the hands of a person: a context of plain methods over `SeriesSession`, for scripts and notebooks."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset

from storage.bucket import Bucket, BucketOptions, open_bucket
from storage.checking.findings import Finding
from storage.keys import SeriesKey
from storage.library.append_result import AppendResult
from storage.library.appending import MAX_INSTANCE_BYTES, MAX_SERIES_BYTES, Rules
from storage.library.custom_fields import CustomFields
from storage.library.dependencies import DependencyReport
from storage.library.describing import UidHash
from storage.library.event_loop import EventLoop, event_loop
from storage.library.instance import Instance
from storage.library.new_file import NewFile, Source
from storage.library.session import Mode, SeriesSession, open_session

_DEFAULTS = BucketOptions()


class Series:
    """One series while it is open; made by `open_series`. Not shared between threads."""

    def __init__(self, session: SeriesSession, loop: EventLoop) -> None:
        self._open: SeriesSession | None = session
        self._loop = loop
        self.study_uid = session.key.study_uid
        self.series_uid = session.key.series_uid

    def __repr__(self) -> str:
        state = "closed" if self._open is None else f"{len(self._open.instances)} instances"
        return f"<Series {self.series_uid} of study {self.study_uid}, {state}>"

    def __len__(self) -> int:
        return len(self._session.instances)

    @property
    def instances(self) -> list[Instance]:
        """What is stored and stays, in the order of metadata.json, then what was appended in this session.

        In mode w nothing that is stored stays.
        """
        return self._session.instances

    def read(self, uid: str) -> bytes:
        """The P10 of an instance, bit for bit; its checksum is proven.

        Raises:
            InstanceNotFound: the series has no such instance.
            InstanceUnreadable: the stored bytes are not those that were written.
            SeriesInMotion: the same while a writer is at work; try again.
        """
        return self._loop.run(self._session.read(uid))

    def dataset(self, uid: str) -> FileDataset:
        """An instance as pydicom reads it. Raises as `read`, and what pydicom raises."""
        return dcmread(io.BytesIO(self.read(uid)), force=True)

    def metadata(self, uid: str) -> dict[str, Any]:  # DICOM JSON
        """The DICOM JSON that metadata.json keeps of an instance, file meta information included.

        Writers may have left invalid attributes out of it; `dataset` reads the bytes. Raises as `read`.
        """
        return self._session.instance(uid).metadata()

    def append(
        self,
        files: Iterable[NewFile | Source],
        *,
        treat_same_pixels_as_same: bool = False,
        max_instance_bytes: int = MAX_INSTANCE_BYTES,
        max_series_bytes: int = MAX_SERIES_BYTES,
    ) -> AppendResult:
        """Offer files: paths (folders and archives too), addresses, bytes, or `NewFile` with hints and dependencies.

        What is new is written when the session is left or committed; what is there always wins. No file keeps the
        others from being taken: the result names those that were refused, and why.

        Args:
            treat_same_pixels_as_same: a file whose header differs and whose pixels do not is the same, no conflict.

        Raises:
            ValueError: the series would have more than `max_series_bytes`; nothing of this call was taken.
        """
        rules = Rules(treat_same_pixels_as_same, max_instance_bytes, max_series_bytes)
        return self._loop.run(self._session.append(files, rules))

    def remove(self, uids: Iterable[str]) -> None:
        """Take instances away when the session is left or committed. Raises InstanceNotFound: then none is."""
        self._session.remove(uids)

    @property
    def custom(self) -> CustomFields:
        """Fields of one's own in metadata.json, JSON values by name; every rewrite keeps them."""
        return self._session.custom

    def commit(self) -> None:
        """Write now what was collected; leaving the session does it too. Raises as `storage.writing.SeriesWriter.commit`."""
        self._loop.run(self._session.commit())

    def check(self) -> tuple[Finding, ...]:
        """What is wrong with the stored series, after reading all of it once: empty if every checksum holds and the
        tar holds what metadata.json says, no more and no less."""
        return self._loop.run(self._session.check())

    @property
    def dependencies(self) -> list[str]:
        """Addresses of the files that its instances stand for."""
        return self._session.dependencies

    def delete_dependencies(self, dry_run: bool = True) -> DependencyReport:
        """Delete the files that stored instances stand for, as far as it is safe.

        First the whole series is checked; if anything is wrong, nothing goes. Then a file goes only if it has, read
        again, the very bytes of every instance that names it, or was what that instance was transcoded from. Files
        in archives are never deleted.

        Args:
            dry_run: only say what would be deleted; False needs mode a.
        """
        return self._loop.run(self._session.delete_dependencies(is_dry_run=dry_run))

    @property
    def _session(self) -> SeriesSession:
        if self._open is None:
            raise ValueError("the series is closed: use it inside of its `with`")
        return self._open

    def _close(self) -> None:
        self._open = None


@contextmanager
def open_series(
    datastore: str | os.PathLike[str],
    study_uid: str,
    series_uid: str,
    *,
    mode: Mode = "r",
    hashed_uids: bool = False,
    uid_hash_func: UidHash | None = None,
    wait_seconds: float = 0,
    options: BucketOptions = _DEFAULTS,
) -> Iterator[Series]:
    """Open one COD series for as long as a `with` lasts.

    Args:
        datastore: `gs://bucket/prefix`, `s3://bucket/prefix`, or a folder (made if it is not there, unless mode is r).
        study_uid, series_uid: as the store names them: hashed in a store of hashed UIDs.
        mode: r reads, without a lock. a holds the lock, adds and removes. w holds the lock and begins empty: what was
            appended takes the place of everything that is stored.
        hashed_uids: the store names everything by hashed UIDs; the bytes stay as they are.
        uid_hash_func: UID in a file → UID in the store; needed to append to a store of hashed UIDs.
        wait_seconds: how long to wait for another writer.
        options: how to reach the bucket.

    Raises:
        SeriesNotFound: mode r, and there is no such series.
        SeriesLocked: another writer holds the lock; the message names who and since when.
        SeriesUnfinished: a change broke off; its lock stays, and the message says what to do.
        CorruptSeries, StorageUnavailable: what is stored cannot be read.
        ValueError: the arguments contradict each other, or what is stored.
        On leaving, as `storage.writing.SeriesWriter.commit` raises. After an exception nothing is written.
    """
    loop = event_loop()
    key = SeriesKey(str(study_uid), str(series_uid))  # pydicom's UIDs are more than text
    bucket = loop.run(_open_bucket(datastore, options, create=mode != "r"))
    try:
        context = open_session(
            bucket,
            key,
            mode=mode,
            hashed_uids=hashed_uids,
            uid_hash_func=uid_hash_func,
            wait_seconds=wait_seconds,
            options=options,
        )
        session = loop.run(context.__aenter__())
        series = Series(session, loop)
        try:
            yield series
        except BaseException:
            loop.run(_abandon(context))
            raise
        finally:
            series._close()
        loop.run(context.__aexit__(None, None, None))
    finally:
        loop.run(bucket.close())


class _Abandoned(Exception):
    """Stands for whatever ended the body: a KeyboardInterrupt thrown into the loop's thread would end that."""


async def _abandon(context: AbstractAsyncContextManager[SeriesSession]) -> None:
    """Leave a session without writing anything."""
    error = _Abandoned()
    await context.__aexit__(_Abandoned, error, None)


async def _open_bucket(datastore: str | os.PathLike[str], options: BucketOptions, *, create: bool) -> Bucket:
    address = datastore if isinstance(datastore, str) else Path(datastore)
    return open_bucket(address, create=create, options=options)
