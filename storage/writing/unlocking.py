"""Looking at the lock of a series, and giving it free by hand: the road for locks that nobody takes over by itself."""

from dataclasses import dataclass

from storage.bucket.base import Bucket
from storage.cod.lock import LockOwner, SeriesLock, handed_over, lock_sentence, read_lock
from storage.errors import ObjectNotFound, SeriesUnfinished
from storage.keys import SeriesKey
from storage.writing.recovery import Side, is_whole, settle


@dataclass(frozen=True, slots=True)
class LockReport:
    """A lock as it was found."""

    series: SeriesKey
    version: str
    updated: float
    """Seconds since the epoch of its last change."""
    owner: LockOwner | None
    """None: it does not say, as locks of the published library do not."""
    has_journal: bool
    """A change was about to be made: which side stands is found out before the lock goes."""
    sentence: str
    """Who holds it and since when."""

    @property
    def is_alive(self) -> bool | None:
        """Whether its process runs; None where that cannot be known from here."""
        if self.owner is None:
            return None
        return False if self.owner.is_dead else (True if self.owner.is_on_this_host else None)


async def look_at_lock(bucket: Bucket, key: SeriesKey) -> LockReport | None:
    """The lock of a series, or None if there is none."""
    try:
        info, text = await read_lock(bucket, key)
    except ObjectNotFound:
        return None
    sentence = lock_sentence(key, text.owner, info.updated)
    return LockReport(key, info.version, info.updated, text.owner, text.journal is not None, sentence)


async def unlock(bucket: Bucket, report: LockReport, *, owner: str, is_forced: bool = False) -> Side | None:
    """Settle the change that a lock announces, and delete the lock: what somebody decides who knows that its writer is gone.

    Args:
        is_forced: delete it even where nobody can tell which side of the change stands.

    Returns:
        Which side stands, None if forced.

    Raises:
        SeriesLocked: the lock is no longer the one that was looked at.
        SeriesUnfinished: not forced, and nobody can tell.
        StorageUnavailable: the bucket does not answer; the lock stays.
    """
    try:
        _, text = await read_lock(bucket, report.series)
    except ObjectNotFound:
        return Side.BEFORE
    is_clear = text.owner is not None or await is_whole(bucket, report.series)
    if not (is_clear or is_forced):
        raise SeriesUnfinished(
            f"{report.series}: its lock does not say what was under way, and metadata.json and the tar do not agree; "
            "`codweb check` tells more"
        )
    lock = SeriesLock(report.series, report.version)
    await lock.rewrite(bucket, handed_over(text, LockOwner.this_process(owner)))
    side: Side | None = None
    try:
        side = await settle(bucket, report.series, text) if is_clear else None
    except SeriesUnfinished:
        if not is_forced:
            raise
    await lock.release(bucket)
    return side
