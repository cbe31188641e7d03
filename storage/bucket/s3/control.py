"""boto3 in threads: one request each, its errors made ours."""

import threading
from typing import Any

from storage.bucket.remote.threads import Threads
from storage.bucket.s3.refusal import Refusal, read_response
from storage.bucket.s3.service import Service
from storage.errors import StorageUnavailable, TryAgain

_ONLY_ASKS = {"list_objects_v2", "head_object"}
"""Verbs that change nothing: nobody needs to wait for their end."""


class Refused(Exception):
    """The service answered, and not what was hoped for; who asked knows what that means."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.status} {refusal.code}")
        self.refusal = refusal


class Control:
    """The bucket's control plane. The client is made when it is first needed."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._threads = Threads("s3", service.patience)
        self._lock = threading.Lock()
        self._client: Any = None  # boto3 carries no types

    async def ask(self, verb: str, **arguments: object) -> dict[str, Any]:  # Any: as botocore has parsed it
        """One request.

        Args:
            verb: a method of boto3's S3 client; the bucket is added.

        Raises:
            Refused: the service refused.
            TryAgain: no answer.
        """
        return await self._threads.run(lambda: self._ask(verb, arguments), changes=verb not in _ONLY_ASKS)

    async def close(self) -> None:
        self._threads.close()
        if self._client is not None:
            self._client.close()

    def _ask(self, verb: str, arguments: dict[str, object]) -> dict[str, Any]:
        from botocore.exceptions import (  # type: ignore[import-untyped]  # botocore carries no types
            BotoCoreError,
            ClientError,
            HTTPClientError,
            NoCredentialsError,
        )

        try:
            with self._lock:
                if self._client is None:
                    self._client = self._service.control()
            answer: dict[str, Any] = getattr(self._client, verb)(Bucket=self._service.bucket, **arguments)
            return answer
        except ClientError as error:
            raise Refused(read_response(error.response)) from error
        except HTTPClientError as error:  # time-outs, refused and broken connections
            raise TryAgain(f"{self._service.where}: {error}") from error
        except NoCredentialsError as error:
            raise StorageUnavailable(f"{self._service.where}: writing needs credentials, and none are given") from error
        except BotoCoreError as error:  # credentials that cannot be renewed, an answer that is no XML
            raise StorageUnavailable(f"{self._service.where}: {error}") from error
