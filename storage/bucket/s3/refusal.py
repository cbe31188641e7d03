"""What an S3 service, or the way to it, said instead of answering, and which error of ours that is.

Source: Amazon S3 API Reference, "Error responses" (list of error codes).
"""

import re
from dataclasses import dataclass
from typing import Any

from storage.errors import ObjectChanged, ObjectNotFound, ObjectTruncated, StorageError, StorageUnavailable, TryAgain

PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504, 509}
PASSING_CODES = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}

_SIGN_IN = {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "PermanentRedirect",
    "TemporaryRedirect",
}

_REASONS = (
    ("dns error", "the service's name is not known; check the endpoint"),
    ("ConnectionRefused", "nobody listens there; check the endpoint"),
    ("InvalidContentType", "no TLS there; does the endpoint begin with http://?"),
    ("InvalidCertificate", "its certificate is not trusted; check the endpoint, or the certificates of this machine"),
    ("TimedOut", "no answer in time"),
    ("ConnectionReset", "the connection broke"),
    ("IncompleteMessage", "the connection broke"),
    ("UnexpectedEof", "the body broke off"),
)
"""What obstore's debug dump holds, and what it means; the message itself says "error sending request" of them all."""

_DIGITS = 10
"""More of them are no number of seconds to wait: 300 years, and floats end somewhere."""
_STATUS = re.compile(r"status code: (\d{3})")
_FIELD = r"<{0}>([^<]*)</{0}>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that is none of those that were hoped for, or (status 0) no answer at all."""

    status: int
    code: str
    message: str
    region: str = ""
    """Where the bucket is, if the service says so."""
    after_seconds: float | None = None

    def error(self, key: str, where: str) -> StorageError:
        """What to raise.

        Args:
            where: the bucket and its service, for messages.
        """
        said = f"{self.status} {self.code}".strip() if self.status else self.message
        about = f"{key}: {where}" if key else where
        if self.status == 404 and self.code == "NoSuchKey":
            return ObjectNotFound(key)
        if self.status == 404 and self.code == "NoSuchBucket":
            return StorageUnavailable(f"{where} does not exist: check the bucket's name, and the endpoint")
        if self.status == 0 or self.status in PASSING_STATUSES or self.code in PASSING_CODES:
            return TryAgain(f"{about}: {said}", after_seconds=self.after_seconds)
        if self.status == 412:
            return ObjectChanged(f"{about}: no longer the version that was named")
        if self.status == 416:
            return ObjectTruncated(f"{about}: the object ends before the range that was asked")
        if self.code in _SIGN_IN or self.status == 401:
            return StorageUnavailable(f"{about}: {said}: the credentials are wrong or expired; sign in again")
        if self.code in _REGION or 300 <= self.status < 400:
            hint = f"it is in {self.region}" if self.region else "set the region that the bucket is in"
            return StorageUnavailable(f"{about}: {said}: wrong region or endpoint; {hint}")
        if self.code == "RequestTimeTooSkewed":
            return StorageUnavailable(f"{about}: {said}: the clock of this machine is wrong")
        if self.code == "InvalidObjectState":
            return StorageUnavailable(f"{about}: {said}: the object is archived; restore it first")
        if self.status == 403:
            return StorageUnavailable(
                f"{about}: {said}: these credentials may not do this (an absent object looks the same without the"
                " permission s3:ListBucket)"
            )
        if self.status == 404 and not self.code.startswith("NoSuch"):
            return StorageUnavailable(f"{about}: {said}: no word of S3; is the endpoint an S3 service?")
        return StorageUnavailable(f"{about}: {said}: {self.message}")


def read_text(text: str) -> Refusal:
    """From the message of an obstore error: one line, then the body of the answer, then a debug dump.

    The key is part of the line and may hold anything, the body's `<Code>` is escaped by the service: the last ones
    count.
    """
    text, _, dump = text.partition("\n\nDebug source:")
    statuses = _STATUS.findall(text)
    status = int(statuses[-1]) if statuses else 0
    message = _last(text, "Message") or text.rpartition(" - ")[2]
    if status == 0:
        message = next((meaning for sign, meaning in _REASONS if sign in dump), message)
    if "incorrectly configured region" in text:  # a redirect without an address
        status = 301
    return Refusal(status, _last(text, "Code") if statuses else "", message, _last(text, "Region"))


def read_response(response: dict[str, Any]) -> Refusal:  # Any: as botocore has parsed it
    """From the response of a botocore ClientError."""
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    asked = str(headers.get("retry-after", ""))
    return Refusal(
        status=int(metadata.get("HTTPStatusCode", 0)),
        code=str(error.get("Code", "")),
        message=str(error.get("Message", "")),
        region=str(error.get("Region", "") or headers.get("x-amz-bucket-region", "")),
        after_seconds=float(asked) if asked.isdecimal() and len(asked) < _DIGITS else None,
    )


def _last(text: str, field: str) -> str:
    found = re.findall(_FIELD.format(field), text)
    return str(found[-1]) if found else ""
