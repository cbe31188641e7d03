"""The state folder: one per datastore, a secret made once, a right to build that others wait for."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.keys import SeriesKey
from storage.state import StateFolder

KEY = SeriesKey("1.2.3", "4.5.6")


def test_datastores_do_not_share_state(tmp_path: Path) -> None:
    one, other = StateFolder(tmp_path, "file:///a/dicomweb"), StateFolder(tmp_path, "file:///b/dicomweb")

    assert one.path != other.path
    assert StateFolder(tmp_path, "file:///a/dicomweb").path == one.path


def test_the_folder_says_for_people_which_datastore_it_is_of(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "file:///data/dicomweb")

    assert (state.path / "datastore.txt").read_text("utf-8") == "file:///data/dicomweb\n"


def test_of_many_who_start_at_once_all_get_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: StateFolder(tmp_path, "memory://x").uid_key(), range(64)))

    assert len(secrets) == 1
    assert len(secrets.pop()) == 32


def test_the_secret_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "memory://x")
    state.uid_key()

    assert (state.path / "uid.key").stat().st_mode & 0o077 == 0


async def test_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "memory://x")
    inside = 0
    most = 0

    async def build() -> None:
        nonlocal inside, most
        async with state.building(KEY):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.002)
            inside -= 1

    await asyncio.gather(*(build() for _ in range(24)))

    assert most == 1


async def test_those_who_wait_take_no_thread_from_the_one_who_builds(tmp_path: Path) -> None:
    """Waiting in the pool's threads, builders of two processes could each hold what the other waits for."""
    state = StateFolder(tmp_path, "memory://x")
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with state.building(KEY):
        waiting = [asyncio.create_task(hold(state)) for _ in range(5)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            assert await asyncio.to_thread(lambda: "done") == "done"
    await asyncio.gather(*waiting)


async def test_who_gives_up_waiting_leaves_the_right_to_the_others(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "memory://x")
    async with state.building(KEY):
        impatient = asyncio.create_task(hold(state))
        await asyncio.sleep(0.02)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient

    async with asyncio.timeout(2):
        await hold(state)


async def hold(state: StateFolder) -> None:
    async with state.building(KEY):
        pass
