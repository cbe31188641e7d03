"""What can go wrong below HTTP, as a tree; `app/errors.py` maps each class to a status.

    StorageError                      500
    ├── NotFound                      404   the bucket, or the series, said "absent"
    │   ├── ObjectNotFound                  a key of a bucket
    │   ├── StudyNotFound
    │   ├── SeriesNotFound
    │   ├── InstanceNotFound
    │   ├── FrameNotFound
    │   └── BulkdataNotFound
    ├── Conflict                      409
    │   ├── ObjectExists                    create-if-absent found the key taken
    │   ├── InstanceExists                  an instance of this SOP Instance UID is stored already
    │   ├── SeriesFull                      the change would make metadata.json larger than it can be read
    │   ├── SeriesLocked                    another writer holds the lock
    │   └── SeriesUnfinished                a writer broke off within a change, and its lock remains
    ├── Withheld                      406   may not be given out (de-identified stores)
    ├── CorruptSeries                 500   metadata and tar disagree, hostile sizes, unreadable structure
    │   ├── ObjectTruncated                 an object ends before the range that was asked
    │   └── InstanceUnreadable              one instance cannot be proven or located; the others can
    └── StorageUnavailable            503   timeout, refused, throttled (with Retry-After)
        ├── TryAgain                        a failure of a store on the network that may pass
        ├── ObjectChanged                   the object is no longer the version that was named
        └── SeriesInMotion                  a lock exists and what it guards does not agree (yet)

A failure to read is never a `NotFound`. Messages name UIDs, keys and numbers, never an attribute value of a patient.
"""


class StorageError(Exception):
    """Base of everything this package raises on purpose."""


class NotFound(StorageError):
    """What was asked for is not there: the bucket, or the series' own metadata, said so."""


class ObjectNotFound(NotFound):
    """The bucket holds no object of this key."""


class StudyNotFound(NotFound):
    """No series of this study is in the datastore."""


class SeriesNotFound(NotFound):
    """The datastore holds no such series in this study."""


class InstanceNotFound(NotFound):
    """The series holds no instance of this SOP Instance UID."""


class FrameNotFound(NotFound):
    """A frame number beyond NumberOfFrames (0028,0008), or an instance without pixels."""


class BulkdataNotFound(NotFound):
    """The instance has no bulk data at this attribute path."""


class Conflict(StorageError):
    """The present state forbids the change."""


class ObjectExists(Conflict):
    """Create-if-absent found the key taken."""


class InstanceExists(Conflict):
    """The series holds an instance of this SOP Instance UID already."""


class SeriesFull(Conflict):
    """The change would give a series more instances, or more metadata, than anybody reads again."""


class SeriesLocked(Conflict):
    """Another writer holds the lock of the series."""


class SeriesUnfinished(Conflict):
    """A change broke off where nobody can tell now how far it came; its lock remains and says what was to become."""


class Withheld(StorageError):
    """The bytes exist and may not be given out: they carry the UIDs that a de-identified store hides."""


class CorruptSeries(StorageError):
    """Stored metadata and stored bytes disagree, or their structure cannot be read."""


class ObjectTruncated(CorruptSeries):
    """An object ends before the range that was asked: object stores shorten such a range silently, we do not."""


class InstanceUnreadable(CorruptSeries):
    """One instance of a series cannot be proven or its pixels located; its neighbours are not affected."""


class StorageUnavailable(StorageError):
    """The store did not answer, or not in time: trying again later may help."""

    retry_after_seconds = 5


class TryAgain(StorageUnavailable):
    """A failure that may pass: a time-out, a broken connection, throttling, a 5xx of the store.

    Anything else that goes wrong (refused credentials, no such bucket) is a plain `StorageUnavailable`: asking again
    would only take longer to say the same.
    """

    def __init__(self, message: str, *, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds
        """What the store asked to wait (Retry-After), if it did."""


class ObjectChanged(StorageUnavailable):
    """The object is no longer the version that the read named."""

    retry_after_seconds = 1


class SeriesInMotion(StorageUnavailable):
    """A writer's lock exists and the objects it guards do not agree: a rewrite is under way, or was broken off."""

    retry_after_seconds = 10
