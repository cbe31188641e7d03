"""Who asks: Google's application default credentials, found at the first use and kept fresh, or nobody."""

import asyncio
from datetime import UTC
from threading import Lock
from typing import TYPE_CHECKING

import google.auth
from google.auth.credentials import AnonymousCredentials, Credentials, TokenState
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.auth.transport.requests import Request

from storage.errors import StorageUnavailable, TryAgain

if TYPE_CHECKING:
    from obstore.store import GCSCredential

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)


class Login:
    """One set of credentials for both clients of a bucket."""

    def __init__(self, *, is_anonymous: bool, credentials: Credentials | None = None) -> None:
        self.is_anonymous = is_anonymous
        self._failure: StorageUnavailable | None = None
        self._credentials = AnonymousCredentials() if is_anonymous else credentials  # type: ignore[no-untyped-call] # google-auth
        self._lock = Lock()

    @property
    def failure(self) -> StorageUnavailable | None:
        """Why the last token could not be had: obstore passes on the words of an error, not its class.

        New each time: many reads fail by it at once, and an error that is raised gathers what it has passed.
        """
        return None if self._failure is None else type(self._failure)(str(self._failure))

    def credentials(self) -> Credentials:
        """Find the credentials; asks the metadata server when nothing nearer has any. Blocks.

        Raises:
            StorageUnavailable: there are none.
        """
        with self._lock:
            if self._credentials is None:
                try:
                    self._credentials, _ = google.auth.default(scopes=_SCOPES)
                except DefaultCredentialsError as error:
                    raise StorageUnavailable(
                        "no Google credentials were found: run `gcloud auth application-default login`, or set "
                        "GOOGLE_APPLICATION_CREDENTIALS to a key file, or ask anonymously if the bucket is public"
                    ) from error
            return self._credentials

    async def token(self) -> "GCSCredential":
        """What obstore asks for at its first request, and again some minutes before the token expires."""
        try:
            fresh = await asyncio.to_thread(self._fresh)
        except StorageUnavailable as error:
            self._failure = error
            raise
        self._failure = None
        # google-auth counts in UTC and does not say so.
        expiry = None if fresh.expiry is None else fresh.expiry.replace(tzinfo=UTC)
        return {"token": str(fresh.token), "expires_at": expiry}

    def _fresh(self) -> Credentials:
        credentials = self.credentials()
        with self._lock:
            state = credentials.token_state
            if state is TokenState.FRESH:
                return credentials
            try:
                credentials.refresh(Request())  # type: ignore[no-untyped-call] # google-auth types its classes in part
            except (TransportError, RefreshError) as error:
                if state is TokenState.STALE:  # it still counts: the next request tries again
                    return credentials
                raise not_signed_in(error) from error
        return credentials


def not_signed_in(error: Exception) -> StorageUnavailable:
    """The error for credentials that give no token. Google's own words may hold addresses with secrets in them."""
    if isinstance(error, TransportError) or getattr(error, "retryable", False):
        return TryAgain(f"Google gave no token: {type(error).__name__}")
    return StorageUnavailable(
        f"Google refuses the credentials: {type(error).__name__} (run `gcloud auth application-default login` anew, "
        "or replace the key file of GOOGLE_APPLICATION_CREDENTIALS)"
    )
