"""Measures reading: `python -m benchmarks.reading --out results.json`.

Makes the data where they are not there yet, checks every answer, then measures cold starts and warm rows in rounds, with
nginx over the same bytes in the same run where it is installed. README.md says how to read what comes out.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory
from time import perf_counter
from types import FrameType

from benchmarks import machine, server
from benchmarks.answers import WrongAnswer
from benchmarks.cold import ColdStarts
from benchmarks.data import Data, Sizes, prepare
from benchmarks.load import Unanswered
from benchmarks.report import Results
from benchmarks.warm import warm_run

LIMIT_SECONDS = 220
"""No round begins that could not end by then."""
GRACE_SECONDS = 60
"""A run that is not through so long after its limit hangs, and is given up."""


def main() -> int:
    """The command. 0: measured; 1: an answer was wrong or missing; 2: time ran out before every round was measured."""
    options = _options()
    if not Path("/proc/stat").exists():
        print("benchmarks read processor times from /proc, which is there on Linux only", file=sys.stderr)
        return 1
    sizes = Sizes(options.studies, options.series, options.instances, options.slices, options.page)
    options.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)  # or the servers would outlive this process
    signal.signal(signal.SIGALRM, _too_long)
    try:
        data = prepare(options.work, sizes, options.seed)
        with TemporaryDirectory(dir=options.work, prefix="run-") as folder:
            signal.setitimer(signal.ITIMER_REAL, options.limit + GRACE_SECONDS)
            results = measure(data, Path(folder), options.rounds, options.limit)
    except (WrongAnswer, Unanswered, OSError, RuntimeError, SubprocessError) as error:
        print(f"not measured: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n" + results.as_markdown())
    if options.out is not None:
        options.out.write_text(json.dumps(results.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if results.left_out is None else 2


def measure(data: Data, folder: Path, rounds: int, limit_seconds: float) -> Results:
    """One run over prepared data. Raises WrongAnswer, Unanswered, RuntimeError: a process did not start."""
    begun, others, load_before = perf_counter(), machine.OthersMeter(), machine.load_average()
    port, program = server.free_port(), server.nginx_program()
    cold = ColdStarts(data, port, folder)
    done_cold = _repeat("cold", cold.round, rounds, begun + limit_seconds / 2)
    state = folder / "warm"
    index_seconds = server.index(data.datastore, state, port)
    print(f"indexed in {index_seconds:.1f} s; checking answers ...", flush=True)
    with warm_run(data, state, port, folder, program) as warm:
        done_warm = _repeat("warm", warm.round, rounds, begun + limit_seconds)
        warm.check_again()
    done = min(done_cold, done_warm)
    return Results(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine.describe(),
        manifest=data.manifest,
        rounds=done,
        nginx_version=server.nginx_version(program) if program is not None else None,
        load_before=load_before,
        load_after=machine.load_average(),
        others=others.cores(),
        seconds=perf_counter() - begun,
        index_seconds=index_seconds,
        cold=cold.all,
        warm=warm.measured,
        memory_growth_mb=warm.memory_growth_mb,
        left_out=f"{rounds - done} of {rounds} rounds, for want of time" if done < rounds else None,
    )


def _repeat(name: str, measure_round: Callable[[], None], rounds: int, until: float) -> int:
    """Measure round after round while there is time for one as long as the longest; how many were measured."""
    longest = 0.0
    for number in range(rounds):
        begun = perf_counter()
        if number and begun + longest > until:
            return number
        measure_round()
        longest = max(longest, perf_counter() - begun)
        print(f"{name} round {number + 1} of {rounds}: {perf_counter() - begun:.1f} s", flush=True)
    return rounds


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Unanswered("the run takes too long")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the results there, as JSON")
    parser.add_argument("--work", type=Path, default=Path("bench-data"), help="folder for the data (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the data (%(default)s)")
    parser.add_argument("--studies", type=_count, default=2, help="studies of small slices (%(default)s)")
    parser.add_argument("--series", type=_count, default=4, help="series of each (%(default)s)")
    parser.add_argument("--instances", type=_count, default=450, help="instances of each series (%(default)s)")
    parser.add_argument("--slices", type=_count, default=600, help="slices of the 512×512 series (%(default)s)")
    parser.add_argument("--page", type=_count, default=100, help="studies of one instance each (%(default)s)")
    parser.add_argument("--rounds", type=_count, default=3, help="rounds, of which medians are taken (%(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds of measuring (%(default)s)")
    return parser.parse_args()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
