"""Where an S3 service is and who asks it: options, environment and boto3's credentials made into clients.

boto3 is imported only when something must be signed or written.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import S3Store as ObstoreS3

from storage.bucket.options import Patience, S3Options
from storage.bucket.remote.leaving import settle_at_exit
from storage.bucket.remote.threads import threads_of
from storage.bucket.s3.listing import keep_body
from storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3CredentialProvider

CREDENTIALS_SECONDS = 9 * 60
"""How long obstore keeps credentials: boto3 hands out none that end within 10 minutes."""

_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Service:
    """One bucket of one service, ready to be asked."""

    bucket: str
    endpoint: str
    """Empty: Amazon's own."""
    region: str
    is_path_style: bool
    session: Any
    """A boto3 session (boto3 carries no types); None: anonymous."""
    patience: Patience

    @property
    def where(self) -> str:
        return f"the bucket {self.bucket!r} at {self.endpoint or 'Amazon S3, ' + self.region}"

    @property
    def address(self) -> str:
        """Of the bucket, or (path style) of the service: Amazon's own too."""
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        endpoint = self.endpoint or f"https://s3.{self.region}.{domain}"
        return endpoint if self.is_path_style else _with_host(endpoint, self.bucket)

    def reader(self) -> ObstoreS3:
        """obstore's client: never repeats a request, and leaves the whole time of one to who asks."""
        config: S3Config = {
            "region": self.region,
            # Both: obstore reads AWS_ENDPOINT and its kin by itself, and AWS_ENDPOINT_URL_S3 would go before `endpoint`.
            "endpoint": self.address,
            "aws_endpoint_url_s3": self.address,
            "virtual_hosted_style_request": not self.is_path_style,
            "skip_signature": self.session is None,
        }
        client: ClientConfig = {
            "allow_http": self.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=self.patience.connect_seconds),
            "read_timeout": timedelta(seconds=self.patience.read_seconds),
            "timeout": timedelta(days=1),
            "user_agent": "codweb",
        }
        settle_at_exit()
        return ObstoreS3(
            self.bucket,
            config=config,
            client_options=client,
            retry_config={"max_retries": 0},
            credential_provider=self._credentials(),
        )

    def control(self) -> Any:  # a boto3 client: no types
        """boto3's client, made anew: slow (0.1 s), safe to share between threads."""
        from boto3.session import Session  # type: ignore[import-untyped]  # boto3 carries no types
        from botocore import UNSIGNED  # type: ignore[import-untyped]  # nor does botocore
        from botocore.config import Config  # type: ignore[import-untyped]  # nor does botocore

        signing = {"signature_version": UNSIGNED} if self.session is None else {}
        config = Config(
            connect_timeout=self.patience.connect_seconds,
            read_timeout=self.patience.read_seconds,
            retries={"total_max_attempts": 1},
            max_pool_connections=threads_of(self.patience),
            s3={"addressing_style": "path" if self.is_path_style else "virtual"},
            # Checksums in trailers are Amazon's; other services refuse or store them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            ignore_configured_endpoint_urls=True,  # both clients must speak to the same service
            user_agent_extra="codweb",
            **signing,
        )
        session = self.session or Session()
        client = session.client("s3", region_name=self.region, endpoint_url=self.endpoint or None, config=config)
        keep_body(client)
        return client

    def _credentials(self) -> "S3CredentialProvider | None":
        if self.session is None:
            return None
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider(self.session, ttl=timedelta(seconds=CREDENTIALS_SECONDS))


def reach(bucket: str, options: S3Options, patience: Patience) -> Service:
    """Find the service and the credentials; no request goes to the bucket.

    Raises:
        ValueError: an endpoint that is no address.
        StorageUnavailable: no credentials, or no such profile.
    """
    environment = os.environ
    configured = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    endpoint = _checked(options.endpoint or configured, options)
    session = None if options.anonymous else _sign_in(options)
    # boto3 knows AWS_DEFAULT_REGION only; Amazon's other clients know both, and this one first.
    region = environment.get("AWS_REGION") or (
        session.region_name if session is not None else environment.get("AWS_DEFAULT_REGION")
    )
    return Service(
        bucket=bucket,
        endpoint=endpoint,
        region=options.region or region or _DEFAULT_REGION,
        # A bucket with a dot in its name has no host that a certificate covers.
        is_path_style=options.addressing == "path"
        or (options.addressing == "auto" and (bool(endpoint) or "." in bucket)),
        session=session,
        patience=patience,
    )


def _checked(endpoint: str, options: S3Options) -> str:
    """An endpoint that both clients understand; obstore panics at what it cannot take for a host."""
    if not endpoint:
        return ""
    try:
        parts = urlsplit(endpoint.rstrip("/"))
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    extras = parts.path or parts.query or parts.fragment or parts.username if host is not None else "no host"
    if not host or parts.scheme not in ("http", "https") or extras or (_is_number(host) and not _is_ip(host)):
        raise ValueError(
            "the S3 endpoint must be an address like https://s3.example.org, without bucket or credentials"
        )
    if options.addressing == "virtual" and _is_ip(host):
        raise ValueError("an S3 endpoint that is an IP address has no names for buckets: use path addressing")
    return parts.geturl()


def _is_number(host: str) -> bool:
    return host.rpartition(".")[2].isdecimal()


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _sign_in(options: S3Options) -> Any:
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # botocore carries no types

    try:
        session = Session(profile_name=options.profile or None)
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()
    except BotoCoreError as error:
        raise StorageUnavailable(f"no credentials for S3: {error}") from error
    if credentials is None:
        raise StorageUnavailable(
            "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile of the AWS"
            " configuration, give this machine a role, or ask anonymously if the bucket is public"
        )
    return session


def _with_host(endpoint: str, bucket: str) -> str:
    parts = urlsplit(endpoint)
    return parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl()
