"""The state folder: one per datastore, a secret made once, a right to build that others wait for."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "memory://x")
    inside = 0
    most = 0
    guard = threading.Lock()

    def build(_: int) -> None:
        nonlocal inside, most
        with state.building(KEY):
            with guard:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.002)
            with guard:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build, range(24)))

    assert most == 1
