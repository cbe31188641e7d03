"""What the machine did meanwhile, from /proc: processor time of the measured processes, of the client, of all others.

A figure without it cannot be judged: on two cores, a test run next door doubles every latency.
"""

import os
import platform
import re
import resource
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_MEASURED_WITH = ("codweb", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "msgspec", "zstandard", "pydicom")


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time between two moments, in cores: 1.0 is one core all the time."""

    seconds: float
    measured_seconds: float
    """Processor seconds of the measured processes."""
    client: float
    others: float
    """Everything else on the machine: what spoils a measurement."""


class OthersMeter:
    """Processor time since it was made of everything but this process and the children that it has waited for."""

    def __init__(self) -> None:
        self._begun = self._now()

    def cores(self) -> float:
        """In cores; to be asked when all children have ended."""
        seconds, busy, own = (after - before for before, after in zip(self._begun, self._now(), strict=True))
        return max(0.0, busy - own) / seconds

    def _now(self) -> tuple[float, float, float]:
        own = _own_seconds(resource.RUSAGE_SELF) + _own_seconds(resource.RUSAGE_CHILDREN)
        return perf_counter(), _busy_seconds(), own


class Meter:
    """Processor time since it was made, of some processes (with their children), of this one, of all others."""

    def __init__(self, pid: int) -> None:
        self._pids = process_tree(pid)
        self._begun = self._now()

    def spent(self) -> Spent:
        before, now = self._begun, self._now()
        seconds, busy, measured, client = (after - earlier for earlier, after in zip(before, now, strict=True))
        others = max(0.0, busy - measured - client)  # the counters tick every 10 ms, each in its own time
        return Spent(seconds, measured, client / seconds, others / seconds)

    def _now(self) -> tuple[float, float, float, float]:
        measured = sum(_cpu_seconds(pid) for pid in self._pids)
        client = _own_seconds(resource.RUSAGE_SELF) + _own_seconds(resource.RUSAGE_CHILDREN)  # wrk is a child
        return perf_counter(), _busy_seconds(), measured, client


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while it was looked at
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def resident_mb(pid: int) -> float:
    """Memory of a process and its descendants now (VmRSS), mapped pages of files included."""
    return sum(_status_mb(one, "VmRSS") for one in process_tree(pid))


def peak_resident_mb(pid: int) -> float:
    """The most memory of each since `reset_peak`, or since it began."""
    return sum(_status_mb(one, "VmHWM") for one in process_tree(pid))


def reset_peak(pid: int) -> None:
    """Let `peak_resident_mb` begin anew (proc(5), clear_refs); where that is not allowed it counts from the start."""
    for one in process_tree(pid):
        with suppress(OSError):
            (_PROC / str(one) / "clear_refs").write_text("5")


def load_average() -> float:
    """Of the last minute: how many processes ran or wanted to."""
    return os.getloadavg()[0]


def describe() -> dict[str, object]:
    """The machine and the software, without its name or any path."""
    model = _found(_PROC / "cpuinfo", r"^model name\s*: (.*)$")  # ARM tells none
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_found(_PROC / "meminfo", r"^MemTotal:\s+(\d+)") or 0) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _MEASURED_WITH},
    }


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may hold anything; the first is the state (proc(5), field 3)."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5), fields 14 and 15); 0 when it has ended."""
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _own_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _busy_seconds() -> float:
    """Time of all cores in user, nice, system, interrupt, soft interrupt and stolen (proc(5), /proc/stat)."""
    with (_PROC / "stat").open() as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    user, nice, system, _idle, _waiting, interrupt, soft, stolen = fields
    return (user + nice + system + interrupt + soft + stolen) / _TICKS_PER_SECOND


def _status_mb(pid: int, name: str) -> float:
    return int(_found(_PROC / str(pid) / "status", rf"^{name}:\s+(\d+)") or 0) / 1024


def _found(path: Path, pattern: str) -> str | None:
    match = re.search(pattern, path.read_text(), re.MULTILINE)
    return match[1] if match is not None else None
