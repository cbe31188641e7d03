"""What is wrong with a request, and the one table from errors to HTTP statuses (PS3.18 §8.5; RFC 9457 for the body).

    RequestError                      400   malformed UID, frame list, query, Accept
    ├── NotAcceptable                 406   no acceptable media type (PS3.18 §8.7.8.1)
    ├── RangeNotSatisfiable           416   Range begins behind the end of what would be sent
    └── UnknownHost                   400   links for this host name are not to be made

The tree below HTTP is drawn in `storage/errors.py`. Messages name keys, UIDs and numbers, never the value of a
match key: it may be a patient's name.
"""

from collections.abc import Sequence
from http import HTTPStatus

from storage import errors as storage

PROBLEM_MEDIA_TYPE = "application/problem+json"


class RequestError(Exception):
    """The request cannot be understood, whatever the datastore holds."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotAcceptable(RequestError):
    """Nothing that can be sent fits what the client accepts; `available` lists what would."""

    def __init__(self, detail: str, available: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.available = tuple(available)


class RangeNotSatisfiable(RequestError):
    """The range lies beyond the representation, whose length the answer tells in Content-Range (RFC 9110 §15.5.17)."""

    def __init__(self, length: int) -> None:
        super().__init__(f"the range lies beyond the {length} bytes there are")
        self.length = length


class UnknownHost(RequestError):
    """The request came by a host name that is malformed or not allowed, so no link may be built from it."""


STATUS: dict[type[Exception], int] = {
    RequestError: 400,
    NotAcceptable: 406,
    RangeNotSatisfiable: 416,
    UnknownHost: 400,
    storage.StorageError: 500,
    storage.NotFound: 404,
    storage.ObjectNotFound: 404,
    storage.StudyNotFound: 404,
    storage.SeriesNotFound: 404,
    storage.InstanceNotFound: 404,
    storage.FrameNotFound: 404,
    storage.BulkdataNotFound: 404,
    storage.Conflict: 409,
    storage.ObjectExists: 409,
    storage.InstanceExists: 409,
    storage.SeriesFull: 409,
    storage.SeriesLocked: 409,
    storage.SeriesUnfinished: 409,
    storage.Withheld: 406,
    storage.CorruptSeries: 500,
    storage.ObjectTruncated: 500,
    storage.InstanceUnreadable: 500,
    storage.StorageUnavailable: 503,
    storage.TryAgain: 503,
    storage.ObjectChanged: 503,
    storage.SeriesInMotion: 503,
}
"""Every class of both trees, named one by one, so that a new class is a decision; a test walks the trees."""


def status_of(error: BaseException) -> int:
    """The HTTP status of an error: the row of its nearest class that has one, and 500 for a stranger."""
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return 500


def retry_after_seconds(error: BaseException) -> int | None:
    """The value of `Retry-After`, for errors that time may heal."""
    return error.retry_after_seconds if isinstance(error, storage.StorageUnavailable) else None


def problem(error: BaseException) -> dict[str, object]:
    """The body of an error answer, as an object of `application/problem+json`.

    The message of an error of our own trees is its `detail`; the message of any other exception is kept back, because
    nobody has promised that no attribute value is in it.

    Source: RFC 9457 §3.1 (`about:blank` says that the title is the status' own phrase).
    """
    status = status_of(error)
    is_ours = isinstance(error, RequestError | storage.StorageError)
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": (str(error) if is_ours else "") or "The server met an error that it did not expect.",
    }
    if is_ours:
        body["error"] = type(error).__name__
    if isinstance(error, NotAcceptable) and error.available:
        body["available"] = list(error.available)
    seconds = retry_after_seconds(error)
    if seconds is not None:
        body["retry_after_seconds"] = seconds
    return body
