"""A series as a context: what each mode promises, and what an exception leaves behind."""

import asyncio
import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import pydicom
import pytest

from storage import open_series
from storage.errors import CorruptSeries, InstanceNotFound, SeriesLocked, SeriesNotFound, StorageUnavailable
from tests.ingest.reading import CT
from tests.library.reading import SERIES, SLICES, STUDY, UIDS, Folder, other_header


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture
def two(folder: Folder) -> Folder:
    """A series of two slices."""
    with open_series(folder.root, STUDY, SERIES, mode="w") as series:
        series.append(CT[:2])
    return folder


def test_appended_files_lie_bit_for_bit_in_tar_metadata_and_index(folder: Folder) -> None:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append(CT)

    assert [note.instance_uid for note in result.new] == UIDS
    assert folder.is_whole(dict(zip(UIDS, SLICES, strict=True)))


def test_every_append_of_one_session_is_kept(two: Folder) -> None:
    """The published library loses the first of two."""
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:4])
        series.append(CT[4:])

    assert two.is_whole(dict(zip(UIDS, SLICES, strict=True)))


def test_new_instances_are_stored_in_the_order_of_their_slices(folder: Folder) -> None:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        series.append([CT[3], CT[0], CT[5], CT[1], CT[4], CT[2]])

    heights = [pydicom.dcmread(io.BytesIO(data)).ImagePositionPatient[2] for data in folder.members().values()]
    assert heights == sorted(heights)


def test_nothing_is_written_before_the_session_is_left(two: Folder) -> None:
    before = two.tar.read_bytes(), two.metadata.read_bytes()

    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:])

        assert (two.tar.read_bytes(), two.metadata.read_bytes()) == before
        assert two.lock.exists()


def test_commit_writes_at_once_what_was_collected(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:4])
        series.commit()

        with open_series(two.root, STUDY, SERIES) as reader:
            assert [instance.uid for instance in reader.instances] == UIDS[:4]
        series.append(CT[4:])

    assert two.is_whole(dict(zip(UIDS, SLICES, strict=True)))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_exception_in_the_body_leaves_the_series_as_it_was_and_no_lock(two: Folder, error: type[BaseException]) -> None:
    before = two.everything()

    with pytest.raises(error), open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:])
        series.remove(UIDS[:1])
        series.custom["reviewed"] = True
        raise error

    assert two.everything() == before


def test_mode_w_replaces_every_instance_and_keeps_fields_of_users(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.custom["cohort"] = "A"

    with open_series(two.root, STUDY, SERIES, mode="w") as series:
        assert series.instances == []
        series.append(CT[4:])

    assert two.is_whole(dict(zip(UIDS[4:], SLICES[4:], strict=True)))
    assert two.document()["cohort"] == "A"


def test_mode_w_without_any_instance_keeps_what_is_stored_and_says_so(two: Folder, tmp_path: Path) -> None:
    """The published library blanks the series when every file was refused."""
    before = two.everything()
    (tmp_path / "note.txt").write_text("no DICOM")

    with pytest.raises(ValueError, match="no instance was appended"):
        with open_series(two.root, STUDY, SERIES, mode="w") as series:
            assert len(series.append([tmp_path / "note.txt"]).errors) == 1

    assert two.everything() == before


def test_mode_r_writes_nothing_and_asks_for_no_lock(two: Folder) -> None:
    two.lock.write_bytes(b"somebody's")
    before = two.everything()

    with open_series(two.root, STUDY, SERIES) as series:
        assert series.read(UIDS[0]) == SLICES[0]
        assert len(series) == 2

    assert two.everything() == before


def test_missing_series_cannot_be_opened_for_reading(two: Folder) -> None:
    with pytest.raises(SeriesNotFound), open_series(two.root, STUDY, SERIES + ".9"):
        pass


def test_missing_datastore_is_not_made_by_a_reader(folder: Folder) -> None:
    with pytest.raises(StorageUnavailable), open_series(folder.root, STUDY, SERIES):
        pass

    assert not folder.root.exists()


def test_tar_without_metadata_is_no_series_to_append_to(two: Folder) -> None:
    two.metadata.unlink()

    with pytest.raises(CorruptSeries), open_series(two.root, STUDY, SERIES, mode="a"):
        pass


def test_series_that_is_held_names_its_holder(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a"):
        with pytest.raises(SeriesLocked, match=r"codweb library \(process \d+ on host"):
            with open_series(two.root, STUDY, SERIES, mode="a"):
                pass

    assert not two.lock.exists()


def test_other_writer_is_waited_for(two: Folder) -> None:
    def hold() -> None:
        with open_series(two.root, STUDY, SERIES, mode="a") as series:
            held.set()
            series.append(CT[2:4])
            time.sleep(0.3)

    held = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    with open_series(two.root, STUDY, SERIES, mode="a", wait_seconds=20) as series:
        series.append(CT[4:])
    holder.join()

    assert two.is_whole(dict(zip(UIDS, SLICES, strict=True)))


def test_reader_cannot_change_anything(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES) as series:
        for change in (
            lambda: series.append(CT),
            lambda: series.remove(UIDS[:1]),
            lambda: series.custom.update(a=1),
            lambda: series.commit(),
            lambda: series.delete_dependencies(dry_run=False),
        ):
            with pytest.raises(io.UnsupportedOperation, match="mode"):
                change()


def test_removed_instances_leave_tar_metadata_and_index(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:])
        series.remove([UIDS[0], UIDS[3]])
        assert [instance.uid for instance in series.instances] == [UIDS[1], UIDS[2], *UIDS[4:]]

    assert two.is_whole({uid: data for uid, data in zip(UIDS, SLICES, strict=True) if uid not in (UIDS[0], UIDS[3])})


def test_removing_what_is_not_there_removes_nothing(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        with pytest.raises(InstanceNotFound):
            series.remove([UIDS[0], "1.2.3"])

    assert two.is_whole(dict(zip(UIDS[:2], SLICES[:2], strict=True)))


def test_removing_the_last_instance_removes_the_series(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.remove(instance.uid for instance in series.instances)

    assert two.everything() == {}


def test_removed_instance_may_come_back_with_other_bytes(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.remove([UIDS[0]])
        series.append([other_header(SLICES[0])])

    assert two.is_whole({UIDS[1]: SLICES[1], UIDS[0]: other_header(SLICES[0])})


def test_instance_tells_what_metadata_json_has(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES) as series:
        instance = series.instances[0]
        dataset = series.dataset(UIDS[0])

        assert (instance.uid, instance.size, instance.is_stored) == (UIDS[0], len(SLICES[0]), True)
        assert instance.original_path == CT[0].name
        assert instance.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
        assert dataset == pydicom.dcmread(CT[0])
        assert series.metadata(UIDS[0])["00080018"]["Value"] == [UIDS[0]]


def test_instance_that_waits_for_its_commit_can_be_read(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:3])

        assert series.read(UIDS[2]) == SLICES[2]
        assert series.metadata(UIDS[2])["00080018"]["Value"] == [UIDS[2]]
        assert [instance.is_stored for instance in series.instances] == [True, True, False]


def test_reader_goes_on_when_a_writer_moves_the_series_under_it(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES) as reader:
        with open_series(two.root, STUDY, SERIES, mode="a") as series:
            series.remove(UIDS[:1])

        assert reader.read(UIDS[1]) == SLICES[1]
        with pytest.raises(InstanceNotFound):
            reader.read(UIDS[0])


def test_series_is_closed_outside_of_its_with(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES) as series:
        pass

    with pytest.raises(ValueError, match="closed"):
        series.read(UIDS[0])


def test_custom_fields_are_json_values_that_a_rewrite_keeps(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        series.custom["labels"] = {"lungs": [1, 2.5, None, "ä"]}
        series.custom["gone"] = 1
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        del series.custom["gone"]
        series.append(CT[2:])

    assert two.document()["labels"] == {"lungs": [1, 2.5, None, "ä"]}
    with open_series(two.root, STUDY, SERIES) as series:
        assert dict(series.custom) == {"labels": {"lungs": [1, 2.5, None, "ä"]}}


@pytest.mark.parametrize("name", ["cod", "study_uid", "deid_series_uid", "thumbnail", "codweb", "codweb_originals"])
def test_names_of_the_format_are_no_custom_fields(two: Folder, name: str) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        with pytest.raises(ValueError, match="belongs to the format"):
            series.custom[name] = 1


def test_value_that_is_no_json_is_refused_at_once(two: Folder) -> None:
    with open_series(two.root, STUDY, SERIES, mode="a") as series:
        with pytest.raises(ValueError):
            series.custom["a"] = float("nan")
        with pytest.raises(TypeError):
            series.custom["a"] = {1, 2}  # type: ignore[assignment]


async def test_notebook_whose_loop_runs_already_may_use_it(two: Folder) -> None:
    assert asyncio.get_running_loop().is_running()

    with open_series(two.root, STUDY, SERIES) as series:
        assert series.read(UIDS[0]) == SLICES[0]


def test_unknown_mode_and_short_uids_are_refused(folder: Folder) -> None:
    with pytest.raises(ValueError, match="mode"), open_series(folder.root, STUDY, SERIES, mode="x"):  # type: ignore[arg-type]
        pass
    with pytest.raises(ValueError, match="shorter"), open_series(folder.root, "1.2", SERIES, mode="a"):
        pass


def test_import_of_storage_loads_neither_pydicom_nor_a_cloud() -> None:
    program = "import sys, storage; print(sorted({'pydicom', 'boto3', 'obstore', 'numpy'} & set(sys.modules)))"

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert shown == "[]\n"


def test_every_public_name_of_storage_can_be_imported() -> None:
    import storage

    assert all(getattr(storage, name) is not None for name in storage.__all__)
    assert dir(storage) == sorted(storage.__all__)


def test_interrupt_waits_until_the_work_has_been_undone() -> None:
    """Ctrl-C in the middle of a commit must not leave it to a thread that dies with the process."""
    program = """
import asyncio, os, signal, threading
from storage.library.event_loop import event_loop
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
async def work():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.1)
        print("undone", flush=True)
try:
    event_loop().run(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30).stdout

    assert shown == "undone\ninterrupted\n"
