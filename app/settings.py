"""Every setting of the server, read once at start: `CODWEB_…` variables, then the command line on top."""

import difflib
import os
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from storage.archive.read_ahead.options import ReadAheadOptions
from storage.bucket.options import BucketOptions, GcsOptions, Patience, S3Options
from storage.extrapolation import SERIES_EXTRAPOLATED_TAGS, STUDY_EXTRAPOLATED_TAGS, MetadataMode, tags_of_keywords

PREFIX = "CODWEB_"
_MODE_ALIASES = {"Full": "full", "MainDicomTags": "main", "Extrapolate": "extrapolate"}
"""Orthanc's spelling of its option values."""
NameList = Annotated[tuple[str, ...], NoDecode]
"""A comma-separated list in the environment."""


def default_state_folder() -> Path:
    """The user's state folder (XDG base directory specification), or `/var/lib` style when there is no home."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(base) / "codweb"


_FEWEST_REQUESTS = 4
"""In flight, of a process: streams may take half of them, and single reads must still get through."""


class Settings(BaseSettings):
    """Settings of one server. Names below, in capitals and after `CODWEB_`, are environment variables."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    datastore: str = Field(
        "", description="The datastore, which holds studies/: a folder, s3://bucket/prefix or gs://bucket/prefix."
    )
    state_dir: Path = Field(
        default_factory=default_state_folder,
        description="Folder for everything derived: catalogue and series indexes. May be deleted at any time.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that answer requests; with more than one, another one syncs and deepens for all.",
    )
    port: int = Field(8042, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    public_url: str = Field(
        "", description="Address by which clients reach the service root, e.g. https://pacs.example.org/dicomweb."
    )
    trusted_proxies: NameList = Field(
        (), description="Addresses or networks of proxies whose Forwarded and X-Forwarded-* headers are believed."
    )
    allowed_hosts: NameList = Field(
        ("*",), description="Host names this server answers to (*.example.org works); others get 400. * allows any."
    )
    cors_origins: NameList = Field(
        ("*",), description="Origins whose pages may read answers; * allows any, without credentials."
    )
    s3_endpoint: str = Field(
        "", description="Address of an S3 service that is not Amazon's, e.g. https://ceph.example.org; http is allowed."
    )
    s3_region: str = Field("", description="Region of the S3 service; empty: as the AWS configuration says.")
    s3_profile: str = Field("", description="Profile of the AWS configuration; empty: the default one.")
    s3_anonymous: bool = Field(False, description="Send unsigned requests to S3 (public buckets).")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Where an S3 bucket's name goes: path, virtual (host name), or auto: the path for an own endpoint.",
    )
    gcs_endpoint: str = Field(
        "", description="Address of a Google Cloud Storage service that is not Google's (an emulator)."
    )
    gcs_project: str = Field("", description="Project that pays for requests to requester-pays buckets.")
    gcs_anonymous: bool = Field(
        False, description="Send no credentials to Google Cloud Storage (public buckets, emulators)."
    )
    bucket_connect_seconds: float = Field(
        5, gt=0, description="Longest wait for a connection to the bucket, in seconds."
    )
    bucket_read_seconds: float = Field(
        30,
        gt=0,
        description="Longest wait in seconds for an answer of the bucket to begin, and between two pieces of it.",
    )
    bucket_attempts: int = Field(
        4,
        ge=1,
        description="Requests to the bucket in all, the first one counted, before a failure that may pass is told.",
    )
    bucket_requests: int = Field(
        64,
        ge=1,
        description="Requests to the bucket in flight at once, of all workers together; others wait their turn.",
    )
    bucket_hedge_seconds: float = Field(
        0, ge=0, description="Seconds after which a range that has not begun to come is asked for once more; 0: never."
    )
    read_ahead: Literal["auto", "on", "off"] = Field(
        "auto", description="Read ahead of a viewer that scrolls; auto: from buckets on the network, not from folders."
    )
    read_ahead_block_bytes: int = Field(8388608, ge=65536, description="Bytes of one request that reads ahead.")
    read_ahead_budget_bytes: int = Field(
        268435456, ge=0, description="Most bytes that are held for viewers that scroll, of all workers together."
    )
    share_indexes: bool = Field(
        False,
        description="Keep series indexes in the bucket too, so that other servers and restarts find them (needs writing).",
    )
    studies_metadata: MetadataMode = Field(
        "full",
        description="Metadata mode of /studies/{study}/metadata: full, main or extrapolate (Orthanc's names work).",
    )
    series_metadata: MetadataMode = Field(
        "full", description="Metadata mode of /studies/{study}/series/{series}/metadata: full, main or extrapolate."
    )
    studies_extrapolated_tags: NameList = Field(
        STUDY_EXTRAPOLATED_TAGS, description="Keywords extrapolated at study level in mode extrapolate."
    )
    series_extrapolated_tags: NameList = Field(
        SERIES_EXTRAPOLATED_TAGS, description="Keywords extrapolated at series level in mode extrapolate."
    )
    extrapolate_rule: Literal["majority", "plurality"] = Field(
        "majority",
        description="majority: a value most samples share, else the tag is left out; plurality: as Orthanc 1.4 and later.",
    )
    revalidate_seconds: float = Field(
        30,
        ge=0,
        description="Age in seconds above which a series is checked for changes behind the answer; 0 checks first.",
    )
    sync_seconds: float = Field(
        60, ge=0, description="Seconds between two looks for new, changed and removed series; 0 looks once, at start."
    )
    deepen: Literal["all", "opened", "off"] = Field(
        "all",
        description="Which series have their headers re-read from the tar in the background; opened ones come first.",
    )
    search_default_limit: int = Field(1000, ge=1, description="Results of a search that names no limit.")
    search_max_limit: int = Field(5000, ge=1, description="Most results of one search; more come with offset.")
    search_empty_status: Literal[200, 204] = Field(
        200, description="Status of a search without matches: 200 with [] or 204."
    )
    strict: bool = Field(
        False, description="To the letter of PS3.18: no Accept is 406, instances default to Explicit VR Little Endian."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    @field_validator(
        "trusted_proxies",
        "allowed_hosts",
        "cors_origins",
        "studies_extrapolated_tags",
        "series_extrapolated_tags",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("search_empty_status", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @field_validator("studies_metadata", "series_metadata", mode="before")
    @classmethod
    def _orthanc_names(cls, value: object) -> object:
        return _MODE_ALIASES.get(value, value) if isinstance(value, str) else value

    @field_validator("studies_extrapolated_tags", "series_extrapolated_tags")
    @classmethod
    def _known_keywords(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        tags_of_keywords(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text, strict=False)
        return value

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("write the whole address, e.g. https://pacs.example.org/dicomweb")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.search_default_limit > self.search_max_limit:
            raise ValueError(
                "CODWEB_SEARCH_DEFAULT_LIMIT is above CODWEB_SEARCH_MAX_LIMIT: lower it, or raise the other"
            )
        return self

    @property
    def local_url(self) -> str:
        """The server's own address; of one that listens everywhere, the name that works on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{'localhost' if self.host in ('0.0.0.0', '::') else host}:{self.port}"  # noqa: S104 -- compared, not bound

    @property
    def bucket_options(self) -> BucketOptions:
        """How one process opens a bucket: it has its part of the requests that this machine may have in flight."""
        return BucketOptions(
            s3=S3Options(
                endpoint=self.s3_endpoint,
                region=self.s3_region,
                profile=self.s3_profile,
                anonymous=self.s3_anonymous,
                addressing=self.s3_addressing,
            ),
            gcs=GcsOptions(endpoint=self.gcs_endpoint, project=self.gcs_project, anonymous=self.gcs_anonymous),
            patience=Patience(
                connect_seconds=self.bucket_connect_seconds,
                read_seconds=self.bucket_read_seconds,
                attempts=self.bucket_attempts,
                requests=max(_FEWEST_REQUESTS, self.part_of(self.bucket_requests)),
                hedge_seconds=self.bucket_hedge_seconds,
            ),
        )

    @property
    def read_ahead_options(self) -> ReadAheadOptions:
        """How one process reads ahead: it has its part of the memory."""
        return ReadAheadOptions(
            mode=self.read_ahead,
            block_bytes=self.read_ahead_block_bytes,
            budget_bytes=self.read_ahead_budget_bytes // self.workers,
        )

    def part_of(self, whole: int) -> int:
        """What one worker has of something that the machine has to give; 1 at least."""
        return max(1, whole // self.workers)

    @cached_property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text, strict=False) for text in self.trusted_proxies)


def read_settings(**overrides: object) -> Settings:
    """Settings from the environment, with the options that were given on top.

    Raises:
        ValueError: a value that does not suit its setting, or a `CODWEB_` variable that is none.
    """
    refuse_unknown_variables()
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        raise ValueError("; ".join(map(_sentence, error.errors()))) from error
    if not settings.datastore:
        raise ValueError("name a datastore, e.g. codweb serve ./datastore (or set CODWEB_DATASTORE)")
    return settings


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong with which setting; without the value, and without pydantic's own words around ours."""
    message = problem["msg"].removeprefix("Value error, ")
    return f"{PREFIX}{str(problem['loc'][0]).upper()}: {message}" if problem["loc"] else message


def refuse_unknown_variables() -> None:
    """A misspelt `CODWEB_` variable would be ignored in silence; say what was meant. Raises ValueError."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and name not in _OTHER_VARIABLES:
            close = difflib.get_close_matches(
                name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1
            )
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            raise ValueError(f"there is no setting {name}{hint}")


_OTHER_VARIABLES = frozenset({"CODWEB_REAL_FIXTURES", "CODWEB_NO_UNLISTED_SKIPS"})
"""Variables of the project's own tests."""
