"""The published library, as the tests talk to it: `worker.py` in a process and an environment of its own."""

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.keys import SeriesKey
from tests.conftest import REPOSITORY

PYTHON = REPOSITORY / ".venv-published" / "bin" / "python"
"""Of the environment that tests/published/make_environment makes."""

WORKER = Path(__file__).parent / "worker.py"


class LibraryRefused(Exception):
    """The library raised; the message begins with the name of its exception."""


@dataclass(frozen=True, slots=True)
class TheirInstance:
    """One instance as the library describes and returns it."""

    size: int
    crc32c: str
    uids: Sequence[str]
    """Of study, series and instance."""
    has_pixeldata: bool
    tags: Sequence[str]
    returned: bytes
    """What its file object gives: by a known bug one byte more than the instance, the next byte of the tar."""
    unopened: str
    """Why it did not open, if it did not."""

    @property
    def data(self) -> bytes:
        assert len(self.returned) - self.size in (0, 1)
        return self.returned[: self.size]


@dataclass(frozen=True, slots=True)
class TheirSeries:
    """One series as the library reads it."""

    fields: Mapping[str, Any]
    instances: Mapping[str, TheirInstance]
    unlisted: str
    """What `get_instances` raised, if it did."""
    unsound: str
    """What `integrity_check` raised, if it did."""
    uses_index: bool
    """Whether that check found its way through the tar by the stored index.sqlite."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append of the library says: instance UIDs, and its refusals."""

    new: Sequence[str]
    same: Sequence[str]
    conflict: Sequence[str]
    errors: Sequence[str]


class Library:
    """A running worker. Start with `with`; not shared between threads."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def __enter__(self) -> "Library":
        environment = {
            **os.environ,
            "STORAGE_EMULATOR_HOST": self._endpoint,
            "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA": "true",
        }
        self._process = subprocess.Popen(
            [PYTHON, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # a lock that it holds is of no interest any more
        self._process.communicate()

    def version(self) -> str:
        return str(self._ask("hello")["version"])

    def read(self, datastore: str, key: SeriesKey) -> TheirSeries:
        answer = self._ask("read", datastore, key)
        instances = {
            uid: TheirInstance(**{name: value for name, value in each.items() if name != "data"}, returned=_bytes(each))
            for uid, each in answer.pop("instances").items()
        }
        return TheirSeries(**answer, instances=instances)

    def append(
        self, datastore: str, key: SeriesKey, paths: Sequence[Path], *, mode: str = "a", compress: bool = False
    ) -> Appended:
        """One session of the library. Raises LibraryRefused."""
        return Appended(**self._ask("append", datastore, key, **_session(paths, mode, compress), pause=False))

    def begin_append(self, datastore: str, key: SeriesKey, paths: Sequence[Path]) -> None:
        """As `append`, as far as the library has read what is stored and has not locked yet."""
        assert self._ask("append", datastore, key, **_session(paths, "a", False), pause=True) == {"paused": True}

    def end_append(self) -> Appended:
        self._say("")
        return Appended(**self._heard())

    def hold(self, datastore: str, key: SeriesKey, *, override_age: float | None = None) -> None:
        """Take the lock. Raises LibraryRefused.

        Args:
            override_age: hours after which the library may take away a lock that lists no instances.
        """
        self._ask("hold", datastore, key, override_age=override_age)

    def release(self) -> None:
        self._ask("release")

    def _ask(self, verb: str, datastore: str = "", key: SeriesKey | None = None, **values: Any) -> dict[str, Any]:
        if key is not None:
            values |= {"datastore": datastore, "study_uid": key.study_uid, "series_uid": key.series_uid}
        self._say(json.dumps({"verb": verb, **values}))
        return self._heard()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise LibraryRefused(answer["error"])
        return answer


def _session(paths: Sequence[Path], mode: str, compress: bool) -> dict[str, Any]:
    return {"paths": [str(path) for path in paths], "mode": mode, "compress": compress}


def _bytes(instance: Mapping[str, Any]) -> bytes:
    return base64.b64decode(instance["data"])
