"""What Cloud Storage refuses, in our errors and in sentences that say what to do.

Source: https://cloud.google.com/storage/docs/json_api/v1/status-codes and .../retry-strategy (what may be repeated).
"""

import json
import math
import re
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from storage.errors import ObjectChanged, ObjectNotFound, ObjectTruncated, StorageError, StorageUnavailable, TryAgain

_LONGEST_MESSAGE = 300
"""Characters of the store's own words that are passed on."""
_XML_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_MAY_PASS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class AbsenceUnclear(StorageUnavailable):
    """A 404 that does not say whether the object or its bucket is absent: the bucket must be asked."""


def refusal(described: str, status: int, body: str, retry_after: str | None) -> StorageError:
    """The error for a status that is not the wanted one.

    Cloud Storage answers 404 for an absent object and for an absent bucket; only the words tell them apart.

    Args:
        described: the object, as `gs://bucket/key`.
        body: of the answer: JSON, XML or plain text.
        retry_after: the header, in seconds or as a date.
    """
    words = _words(body)
    said = f"{described}: the store answered {status}: {words}"
    if status in _MAY_PASS or status >= HTTPStatus.INTERNAL_SERVER_ERROR or _is_throttled(status, body):
        return TryAgain(said, after_seconds=_seconds(retry_after))
    match status:
        case HTTPStatus.NOT_FOUND if words.lower().startswith("no such object"):
            return ObjectNotFound(described)
        case HTTPStatus.NOT_FOUND if "bucket does not exist" in words.lower():
            return no_such_bucket(described)
        case HTTPStatus.NOT_FOUND:
            return AbsenceUnclear(said)
        case HTTPStatus.PRECONDITION_FAILED:
            return ObjectChanged(f"{described}: is no longer the generation that was named")
        case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return ObjectTruncated(f"{described}: ends before the range that was asked")
        case HTTPStatus.UNAUTHORIZED:
            return StorageUnavailable(
                f"{said} (the credentials are missing, expired or refused: run `gcloud auth application-default login`, "
                "or point GOOGLE_APPLICATION_CREDENTIALS at a valid key file)"
            )
        case HTTPStatus.FORBIDDEN:
            return StorageUnavailable(
                f"{said} (the account needs the role Storage Object Viewer on the bucket to read, and Storage Object "
                "User to write)"
            )
        case HTTPStatus.BAD_REQUEST if "requester pays" in words.lower():
            return StorageUnavailable(f"{said} (name the project that pays for the requests in the GCS settings)")
        case _:
            return StorageUnavailable(said)


def no_such_bucket(described: str) -> StorageUnavailable:
    """Never a `NotFound`: a misspelt bucket would look like an empty datastore."""
    return StorageUnavailable(f"{described}: there is no such bucket; check the address of the datastore")


def _words(body: str) -> str:
    try:
        words = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        found = _XML_MESSAGE.search(body)
        words = body if found is None else found[1]
    return " ".join(str(words).split())[:_LONGEST_MESSAGE] or "no reason given"


def _is_throttled(status: int, body: str) -> bool:
    """Old quotas answer 403 with a reason of their own."""
    return status == HTTPStatus.FORBIDDEN and "ateLimitExceeded" in body


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110 §10.2.3: a number of seconds, or a date. What is neither counts as not said."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
