"""Deepening in the background: quick indexes become deep ones, opened series first, failures are noted and passed over."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.catalogue.base import KnownSeries
from storage.errors import StorageUnavailable
from storage.indexing.deepening import Deepening
from storage.keys import SeriesKey
from tests.support.buckets import FailingBucket
from tests.support.server import Client, serving
from tests.support.stores import loaded, series_key


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in the background; bounded."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def is_deep(client: Client, key: SeriesKey) -> bool:
    index = client.archive.shelf.opened(key)
    return index is not None and index.header.depth == "deep"


async def test_an_opened_series_becomes_deep_and_its_answer_too(manifest: dict[str, Any], tmp_path: Path) -> None:
    key = series_key(manifest["stores"]["append"]["instances"][0])
    async with serving(await loaded("append"), tmp_path, deepen="opened") as client:
        first = await client.get(f"/dicomweb/{key.stem}/metadata")
        await until(lambda: is_deep(client, key))
        second = await client.get(f"/dicomweb/{key.stem}/metadata")

    assert (first.headers["x-cod-metadata"], first.headers["cache-control"]) == ("quick", "no-store")
    assert second.headers["x-cod-metadata"] == "deep"
    assert "etag" in second.headers


async def test_only_opened_series_are_deepened_when_the_setting_says_so(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    keys = {series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]}
    opened = min(keys)
    async with serving(await loaded("v2_raw"), tmp_path, deepen="opened") as client:
        await client.get(f"/dicomweb/{opened.stem}/metadata")
        await until(lambda: is_deep(client, opened))
        await asyncio.sleep(0.1)

        assert [key for key in keys if is_deep(client, key)] == [opened]


async def test_the_whole_datastore_is_deepened_and_the_catalogue_learns_it(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    async with serving(await loaded("v2_raw"), tmp_path, deepen="all") as client:
        for _ in range(500):
            known = await client.archive.catalogue.known(limit=1000)
            if all(series.depth == "deep" for series in known if series.problem is None):
                break
            await asyncio.sleep(0.02)

        assert {series.depth for series in known if series.problem is None} == {"deep"}


async def test_attributes_that_metadata_json_lacks_are_found_after_deepening(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    """`syn_overlong_ds` has DS values of more than 16 characters, which the published writer drops."""
    entry = next(e for e in manifest["stores"]["v2_raw"]["instances"] if e["source"] == "syn_overlong_ds.dcm")
    key = series_key(entry)
    async with serving(await loaded("v2_raw"), tmp_path, deepen="off") as client:
        response = await client.get(f"/dicomweb/{key.stem}/instances/{entry['key']}/metadata")

    [attributes] = response.json()
    assert response.headers["x-cod-metadata"] == "deep"  # the quick form lacks geometry, so it is not answered
    assert len(attributes["00200032"]["Value"]) == 3


async def test_a_series_that_cannot_be_deepened_does_not_stop_the_others(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    keys = sorted({series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]})
    broken, sound = keys[0], keys[1]
    bucket = FailingBucket(await loaded("v2_raw"))
    async with serving(bucket, tmp_path, deepen="opened") as client:
        bucket.fail("read", lambda key: key == broken.tar, StorageUnavailable("down"))
        await client.archive.shelf.get(broken)
        await until(lambda: broken in client.archive.deepening.failed)
        await client.archive.shelf.get(sound)

        await until(lambda: is_deep(client, sound))


class Listed:
    """A shelf and a catalogue in one: knows some series, lets nobody have any, and notes who was asked for."""

    def __init__(self, *keys: SeriesKey) -> None:
        self.keys = keys
        self.asked: list[SeriesKey] = []
        self.gate = asyncio.Event()

    async def known(self, *, after: str = "", limit: int = 1000) -> list[KnownSeries]:
        return [KnownSeries(key, "1", "1", "quick", False, 1, None) for key in self.keys]

    async def get(self, key: SeriesKey, *, depth: str) -> None:
        self.asked.append(key)
        await self.gate.wait()
        raise StorageUnavailable("not now")


async def test_series_that_other_processes_tell_of_come_before_the_rest_newest_first() -> None:
    first, second, third, told, told_later = (SeriesKey("1.2", f"3.{number}") for number in range(5))
    listed: Any = Listed(first, second, third)
    deepening = Deepening(listed, listed, mode="all")
    deepening.start()
    await until(lambda: listed.asked == [first])

    deepening.next(told)
    deepening.next(told_later)
    listed.gate.set()
    await until(lambda: len(listed.asked) >= 5)
    await deepening.close()

    assert listed.asked[:5] == [first, told_later, told, second, third]


async def test_deepening_goes_on_after_the_catalogue_has_failed(
    manifest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("storage.indexing.deepening._PAUSE_SECONDS", 0.01)
    key = series_key(manifest["stores"]["append"]["instances"][0])
    async with serving(await loaded("append"), tmp_path, deepen="off") as client:
        archive, failures = client.archive, [StorageUnavailable("database is locked")]
        known = archive.catalogue.known

        async def failing(**options: Any) -> list[KnownSeries]:
            if failures:
                raise failures.pop()
            return await known(**options)

        monkeypatch.setattr(archive.catalogue, "known", failing)
        deepening = Deepening(archive.shelf, archive.catalogue, mode="all")
        deepening.start()
        await until(lambda: is_deep(client, key))
        await deepening.close()

    assert "database is locked" in caplog.text
