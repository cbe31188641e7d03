"""Writers in processes of their own, which end themselves by SIGKILL at a step that is told.

They are forked from one process that has imported everything and has no threads: a run costs 30 ms instead of 1.5 s.
`python -m tests.writing.zygote` reads a list of jobs a line, as JSON, and answers with a list of outcomes.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from storage.bucket import Bucket
from storage.bucket.base import ObjectInfo, Piece
from storage.bucket.folder import FolderBucket
from storage.bucket.options import BucketOptions, S3Options
from storage.bucket.remote import RemoteBucket
from storage.bucket.s3 import S3Store
from storage.bucket.s3.service import reach
from storage.errors import StorageError
from storage.keys import SeriesKey
from tests.support.buckets import Request, WrappedBucket
from tests.support.moto_server import KEYS
from tests.support.s3_place import PREFIX, QUICK, _session, client
from tests.writing.commands import COMMANDS, add_one, carry_out

SYSTEM_CALLS = ("mkdir", "open", "write", "copy_file_range", "utime", "fsync", "link", "rename", "unlink")
"""What changes a folder; of `open` those that make a file."""


class Job(msgspec.Struct, frozen=True):
    """One process that writes."""

    store: str
    """A folder's path, or (with an endpoint) the name of a bucket."""
    study_uid: str
    series_uid: str
    command: str
    """Of `COMMANDS`, or the number of a slice to add."""
    endpoint: str = ""
    level: str = "bucket"
    """Which steps are counted: calls to the `bucket`, or to the `system`; `none`: none are."""
    kill_at: int = 0
    """The step, from 1, before which the process ends; 0: none."""
    kill_after_seconds: float = 0
    """When it is killed from outside; 0: not at all."""
    wait_seconds: float = 0


class Outcome(msgspec.Struct, frozen=True):
    """How a process ended."""

    is_killed: bool
    error: str = ""
    """Class and words of what it raised; empty: nothing."""
    steps: tuple[str, ...] = ()
    pid: int = 0


class _Steps:
    """Counts steps and ends the process at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.names: list[str] = []
        self._kill_at = kill_at
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        with self._lock:
            self.names.append(name)
            if len(self.names) == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


class _SteppingBucket(WrappedBucket):
    """Reaches a step before every call, before and after each change, and before each piece of an upload."""

    def __init__(self, inner: Bucket, steps: _Steps) -> None:
        super().__init__(inner)
        self._steps = steps

    async def before(self, request: Request) -> None:
        self._steps.reach(_name(request.verb, request.key))

    async def given(self, request: Request, piece: Piece) -> None:
        if request.verb == "upload":
            self._steps.reach(f"{_name('piece', request.key)}: {type(piece).__name__}")

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        return self._after("write", await super().write(key, data))

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        async def ended() -> AsyncIterator[Piece]:
            async for piece in pieces:
                yield piece
            self._steps.reach(_name("end of pieces", key))

        return self._after("upload", await super().upload(key, ended()))

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        return self._after("create", await super().create(key, data))

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        return self._after("replace", await super().replace(key, data, version=version))

    async def delete(self, key: str) -> None:
        await super().delete(key)
        self._steps.reach(_name("after delete", key))

    def _after(self, verb: str, info: ObjectInfo) -> ObjectInfo:
        self._steps.reach(_name(f"after {verb}", info.key))
        return info


def _name(verb: str, key: str) -> str:
    kind = key.rpartition("/")[2]
    return f"{verb} {'tar' if kind.endswith('.tar') else kind}"


def _count_system_calls(steps: _Steps) -> None:
    """In this process, which does nothing else."""

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **named: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                steps.reach(name)
            return call(*arguments, **named)

        return counting

    for name in SYSTEM_CALLS:
        if hasattr(os, name):
            setattr(os, name, counted(name, getattr(os, name)))


def _opened(job: Job) -> Bucket:
    if not job.endpoint:
        return FolderBucket(Path(job.store))
    return s3_bucket(job.endpoint, job.store)


def s3_bucket(endpoint: str, name: str) -> Bucket:
    """The same bucket that an `S3Place` of this name shows."""
    options = BucketOptions(s3=S3Options(endpoint=endpoint), patience=QUICK)
    service = replace(reach(name, options.s3, QUICK), session=_session())
    return RemoteBucket(S3Store(service, PREFIX), QUICK)


async def _write(job: Job, steps: _Steps) -> None:
    inner = _opened(job)
    bucket: Bucket = _SteppingBucket(inner, steps) if job.level == "bucket" else inner
    key = SeriesKey(job.study_uid, job.series_uid)
    try:
        if job.command in COMMANDS:
            await carry_out(bucket, key, COMMANDS[job.command], wait_seconds=job.wait_seconds)
        else:
            await add_one(bucket, key, int(job.command), wait_seconds=job.wait_seconds)
    finally:
        await inner.close()


def _child(job: Job, answer: int) -> None:
    steps = _Steps(job.kill_at)
    error = ""
    write = os.write
    if job.level == "system":
        _count_system_calls(steps)
    try:
        asyncio.run(_write(job, steps))
    except StorageError as raised:
        error = f"{type(raised).__name__}: {raised}"
    outcome = Outcome(is_killed=False, error=error, steps=tuple(steps.names), pid=os.getpid())
    write(answer, msgspec.json.encode(outcome))


def _forked(job: Job) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            _child(job, write)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    return pid, read


def _ended(pid: int, answer: int) -> Outcome:
    with open(answer, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Outcome(is_killed=os.WTERMSIG(status) == signal.SIGKILL, error="" if not said else "too late", pid=pid)
    return msgspec.json.decode(said, type=Outcome) if said else Outcome(is_killed=False, error="no answer", pid=pid)


def main() -> None:
    """Serve jobs until the end of the input."""
    decoder = msgspec.json.Decoder(list[Job])
    for line in sys.stdin.buffer:
        jobs = decoder.decode(line)
        if any(job.endpoint for job in jobs):
            client(next(job.endpoint for job in jobs if job.endpoint))  # what boto3 reads for it, the children have
        children = [_forked(job) for job in jobs]
        for job, (pid, _) in zip(jobs, children, strict=True):
            if job.kill_after_seconds:
                time.sleep(job.kill_after_seconds)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        outcomes = [_ended(pid, answer) for pid, answer in children]
        sys.stdout.buffer.write(msgspec.json.encode(outcomes) + b"\n")
        sys.stdout.buffer.flush()


class Zygote:
    """The process, as its parent knows it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    async def run(self, *jobs: Job) -> list[Outcome]:
        """Let writers work at the same time, each in a process of its own, and wait for their end."""
        return await asyncio.to_thread(self._run, list(jobs))

    def _run(self, jobs: list[Job]) -> list[Outcome]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(jobs) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=list[Outcome])


@contextmanager
def zygote_process() -> Iterator[Zygote]:
    """With credentials of the services under test, and none of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | KEYS
    command = [sys.executable, "-m", "tests.writing.zygote"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Zygote(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


if __name__ == "__main__":
    main()
