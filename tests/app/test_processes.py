"""What processes of one server tell each other, without the processes."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.processes.board import Board, memory_in_use
from app.processes.opened import OpenedSeries
from app.settings import Settings
from storage.keys import SeriesKey


def opened_index(series_uid: str, depth: str = "quick") -> Any:
    return SimpleNamespace(key=SeriesKey("1.2", series_uid), header=SimpleNamespace(depth=depth))


@pytest.fixture
def opened() -> Any:
    pair = OpenedSeries.pair()
    yield pair
    pair.close()


def test_opened_series_are_heard_once_oldest_first(opened: OpenedSeries) -> None:
    for series_uid in ("3.1", "3.2"):
        opened.tell(opened_index(series_uid))

    assert list(opened.waiting()) == [SeriesKey("1.2", "3.1"), SeriesKey("1.2", "3.2")]
    assert list(opened.waiting()) == []


def test_nothing_is_told_of_a_deep_index(opened: OpenedSeries) -> None:
    opened.tell(opened_index("3.1", "deep"))

    assert list(opened.waiting()) == []


def test_telling_never_waits_though_nobody_listens(opened: OpenedSeries) -> None:
    """The maintenance process may be dead for a while: what is too much is lost, and the first hundred are kept."""
    for number in range(20_000):
        opened.tell(opened_index(f"3.{number}"))

    heard = list(opened.waiting())
    assert heard[:100] == [SeriesKey("1.2", f"3.{number}") for number in range(100)]
    assert len(heard) < 20_000


def test_a_board_shows_who_lives_and_forgets_who_ended() -> None:
    board = Board.of("supervisor", "worker 1", "worker 2")
    board.report_memory(1)
    board.report_connections(1, taken=7, open=3)

    [row] = board.rows()
    assert (row["name"], row["pid"], board.connections(1)) == ("worker 1", os.getpid(), (7, 3))
    board.clear(1)
    assert board.rows() == []
    assert board.connections(1) == (0, 0)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="held against /proc")
def test_memory_in_use_is_what_the_kernel_says() -> None:
    resident, private = memory_in_use()

    told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    assert resident == pytest.approx(int(told["VmRSS"].split()[0]) * 1024, rel=0.2)
    assert private == pytest.approx(int(told["RssAnon"].split()[0]) * 1024, rel=0.2)


def test_what_a_machine_has_is_divided_by_its_workers() -> None:
    alone, four = Settings(), Settings(workers=4)

    assert (alone.bucket_options.patience.requests, four.bucket_options.patience.requests) == (64, 16)
    assert (alone.read_ahead_options.budget_bytes, four.read_ahead_options.budget_bytes) == (256 << 20, 64 << 20)
    assert Settings(workers=4, bucket_requests=2).bucket_options.patience.requests == 4, (
        "a stream must not stop all reads"
    )


def test_settings_name_the_bucket_to_its_last_option() -> None:
    options = Settings(
        s3_endpoint="https://ceph.example.org", s3_region="eu", s3_profile="p", s3_anonymous=True, s3_addressing="path",
        gcs_endpoint="http://localhost:4443", gcs_project="payer", gcs_anonymous=True,
        bucket_connect_seconds=1, bucket_read_seconds=2, bucket_attempts=3, bucket_hedge_seconds=0.5,
    ).bucket_options  # fmt: skip

    s3, gcs, patience = options.s3, options.gcs, options.patience
    assert (s3.endpoint, s3.region, s3.profile, s3.anonymous, s3.addressing) == (
        "https://ceph.example.org", "eu", "p", True, "path"
    )  # fmt: skip
    assert (gcs.endpoint, gcs.project, gcs.anonymous) == ("http://localhost:4443", "payer", True)
    assert (patience.connect_seconds, patience.read_seconds) == (1, 2)
    assert (patience.attempts, patience.hedge_seconds) == (3, 0.5)
