"""Where objects lie: a service, a bucket, a prefix in it, and the project that pays."""

import os
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from storage.bucket.options import GcsOptions

GOOGLE = "https://storage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Place:
    """Turns keys to names of objects and to addresses, and back."""

    endpoint: str
    """Scheme and host, without a slash at the end."""
    bucket: str
    prefix: str
    """Before every key; empty, or ends with a slash."""
    project: str
    """Pays for requests to requester-pays buckets; empty: the bucket's owner does."""
    is_anonymous: bool
    """Send no credentials."""

    @classmethod
    def of(cls, bucket: str, prefix: str, options: GcsOptions) -> "Place":
        """A place as address and options say it.

        A Google credential goes to Google only, over TLS: any other service (an emulator) is asked without one.
        """
        endpoint = options.endpoint or os.environ.get("STORAGE_EMULATOR_HOST", "") or GOOGLE
        if "://" not in endpoint:
            endpoint = f"http://{endpoint}"
        endpoint = _checked(endpoint)
        parts = urlsplit(endpoint)
        host = parts.hostname or ""
        is_google = parts.scheme == "https" and host.endswith(".googleapis.com")
        inner = prefix.strip("/")
        return cls(
            endpoint=endpoint,
            bucket=bucket,
            prefix=f"{inner}/" if inner else "",
            project=options.project,
            is_anonymous=options.anonymous or not is_google,
        )

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")

    def name(self, key: str) -> str:
        return self.prefix + key

    def key(self, name: str) -> str:
        return name[len(self.prefix) :]

    def described(self, key: str) -> str:
        """An object in messages."""
        return f"gs://{self.bucket}/{self.prefix}{key}"

    def upload_url(self, key: str) -> str:
        """Where a resumable upload begins. Source: JSON API, Objects: insert, `uploadType=resumable`."""
        payer = f"&userProject={quote(self.project)}" if self.project else ""
        name = quote(self.name(key), safe="")
        return f"{self.endpoint}/upload/storage/v1/b/{quote(self.bucket)}/o?uploadType=resumable&name={name}{payer}"


def _checked(endpoint: str) -> str:
    """Scheme, host and port, and nothing else. Messages do not repeat it: what is too much in it may be a secret."""
    try:
        parts = urlsplit(endpoint.rstrip("/"))
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    extras = parts.path or parts.query or parts.fragment or "@" in parts.netloc if host is not None else "no host"
    if not host or parts.scheme not in ("http", "https") or extras:
        raise ValueError(
            "the endpoint for gs:// is not the address of a storage service; write https://host or http://host:port,"
            " without user name, password, path or query"
        )
    return parts.geturl()
