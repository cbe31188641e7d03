"""The command: `python -m benchmarks`. README.md says what is measured and how to read what comes out."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Protocol

from benchmarks import far, ingest, reading, tiles, wrk
from benchmarks.answers import WrongAnswer
from benchmarks.data import Data, Sizes, prepare
from benchmarks.load import Unanswered
from benchmarks.warm import Pace

FULL = Sizes(studies=20, series=4, instances=450, slices=600, tiles=81, page=600)
QUICK = Sizes(studies=3, series=2, instances=60, slices=60, tiles=21, page=20)
LIMIT_SECONDS, QUICK_LIMIT_SECONDS = 400, 60
GRACE_SECONDS = 720
"""A profile that is not through so long after its limit hangs, and is given up."""

_NOT_MEASURED = (WrongAnswer, Unanswered, OSError, RuntimeError, SubprocessError)
"""What ends a profile; the others go on."""

_EXAMPLES = """\
profiles:
  reading   codweb from a folder beside nginx and Orthanc with the same bytes; few studies beside many; one worker
            beside two; cold starts
  far       codweb from an S3 bucket that is 30 ms away: the first image, a whole CT
  tiles     random tiles of a slide from S3, beside highdicom's lazy reading
  ingest    3,600 small and 3,600 large slices into a datastore, beside a plain copy, pydicom, Orthanc and the published
            COD library; 8 GB of disk below --work
  all       all of them (default): 25 minutes on two cores, with making the data

examples:
  python -m benchmarks --quick                       try everything, in two minutes
  python -m benchmarks reading --out results.json    tables to read, and their figures
  python -m benchmarks far --rounds 5
  python -m benchmarks reading --studies 2 --page 20 --no-orthanc

The data are made once below --work (about 2.5 GB, 3 minutes), always the same for the same sizes and seed. Run on a machine
that does nothing else: what other processes used is reported with the results.

exit code: 0 measured; 1 an answer was wrong or missing, its profile is not reported; 2 something was left out
"""


class Outcome(Protocol):
    """What came out of a profile."""

    @property
    def left_out(self) -> str | None: ...

    def as_json(self) -> dict[str, object]: ...

    def as_markdown(self) -> str: ...


def main() -> int:
    """The command; its exit codes are told by `--help`."""
    options = _options()
    if not Path("/proc/stat").exists():
        print("benchmarks read processor times from /proc, which is there on Linux only", file=sys.stderr)
        return 1
    options.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)  # or the servers would outlive this process
    signal.signal(signal.SIGALRM, _too_long)
    outcomes: dict[str, Outcome] = {}
    data: Data | None = None
    if options.profile != "ingest":  # which makes its own
        try:
            data = prepare(options.work, _sizes(options), options.seed)
        except _NOT_MEASURED as error:
            return _not_measured("no data", error)
    is_whole = True
    for name, profile in _profiles(options, data).items():
        signal.setitimer(signal.ITIMER_REAL, options.limit + GRACE_SECONDS)
        try:
            with TemporaryDirectory(dir=options.work, prefix="run-") as folder:
                outcomes[name] = profile(Path(folder))
        except _NOT_MEASURED as error:
            is_whole = not _not_measured(name, error)
        else:
            print(f"\n## {name}\n\n{outcomes[name].as_markdown()}", flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _keep(outcomes, options.out)
    if not is_whole:
        return 1
    return 0 if all(outcome.left_out is None for outcome in outcomes.values()) else 2


def _keep(outcomes: Mapping[str, Outcome], out: Path | None) -> None:
    if out is not None:
        found = {name: outcome.as_json() for name, outcome in outcomes.items()}
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        tables = "\n".join(f"## {name}\n\n{outcome.as_markdown()}" for name, outcome in outcomes.items())
        out.with_suffix(".md").write_text(tables, encoding="utf-8")


def _not_measured(what: str, error: BaseException) -> int:
    print(f"not measured: {what}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return 1


def _profiles(options: argparse.Namespace, data: Data | None) -> dict[str, Callable[[Path], Outcome]]:
    """Those that were asked for."""
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    with_wrk = options.client == "wrk" or (options.client == "auto" and not options.quick and wrk.version() is not None)
    plan = reading.Plan(
        rounds=options.rounds,
        limit_seconds=options.limit,
        pace=Pace(1.0, "wrk") if with_wrk else Pace(0.1 if options.quick else 0.5, "python"),
        with_orthanc=options.orthanc,
    )
    known: dict[str, Callable[[Path], Outcome]] = {
        "ingest": lambda folder: ingest.measure(
            options.seed,
            folder,
            command,
            rounds=options.rounds,
            files=120 if options.quick else 3600,
            with_orthanc=options.orthanc,
            published_python=options.published_python,
        )
    }
    if data is None:
        return known
    known |= {
        "reading": lambda folder: reading.measure(data, folder, plan, command),
        "far": lambda folder: far.measure(data, folder, options.rounds, command, is_quick=options.quick),
        "tiles": lambda folder: tiles.measure(
            data, folder, command, options.peer_python, count=40 if options.quick else 200
        ),
    }
    return known if options.profile == "all" else {options.profile: known[options.profile]}


def _sizes(options: argparse.Namespace) -> Sizes:
    default = QUICK if options.quick else FULL
    names = ("studies", "series", "instances", "slices", "tiles", "page")
    chosen = {name: getattr(options, name) for name in names}
    return Sizes(**{name: getattr(default, name) if value is None else value for name, value in chosen.items()})


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Unanswered("the run takes too long")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure codweb beside its peers, with every answer checked.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", nargs="?", choices=("all", "reading", "far", "tiles", "ingest"), default="all")
    parser.add_argument("--quick", action="store_true", help="little data, one round: to try the command")
    parser.add_argument(
        "--out", type=Path, help="also write the figures there, as JSON, and the tables beside it (.md)"
    )
    parser.add_argument("--work", type=Path, default=Path("bench-data"), help="folder for the data (%(default)s)")
    parser.add_argument("--rounds", type=_count, help="of which medians are taken (3; quick: 1)")
    parser.add_argument("--limit", type=float, help="seconds of warm rounds (400; quick: 60)")
    parser.add_argument(
        "--client", choices=("auto", "wrk", "python"), default="auto", help="auto: wrk where installed, unless quick"
    )
    parser.add_argument("--no-orthanc", dest="orthanc", action="store_false", help="leave Orthanc out")
    parser.add_argument(
        "--peer-python",
        default="",
        help="tiles: a Python that has benchmarks/requirements.txt (by default this one, if it has)",
    )
    parser.add_argument(
        "--published-python", default="", help="ingest: a Python that has the published library (cloud-optimized-dicom)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the data (%(default)s)")
    for name, text in (
        ("studies", "studies of small slices"),
        ("series", "series of each"),
        ("instances", "instances of each series"),
        ("slices", "slices of the 512×512 series"),
        ("tiles", "tiles across a slide, and down"),
        ("page", "studies of one instance each"),
    ):
        default, quick = getattr(FULL, name), getattr(QUICK, name)
        parser.add_argument(f"--{name}", type=_count, help=f"{text} ({default}; quick: {quick})")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.limit = options.limit or (QUICK_LIMIT_SECONDS if options.quick else LIMIT_SECONDS)
    return options


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
