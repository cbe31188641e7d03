"""`--transcode`: other bytes, the same samples; and the file that came is the same when it comes again."""

import base64
import errno
import json
from concurrent.futures.process import BrokenProcessPool
from gzip import decompress
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from storage.bucket.memory import MemoryBucket
from storage.ingest import Outcome, ingest
from storage.pixels.encode import Target
from storage.writing import Change, writing
from tests.ingest.reading import CT, P10, attributes_of, entries_of, everything, key_of, made, read_quietly
from tests.support.buckets import RecordingBucket

SYNTAXES = {"j2k": "1.2.840.10008.1.2.4.90", "htj2k": "1.2.840.10008.1.2.4.201", "jls": "1.2.840.10008.1.2.4.80"}


@pytest.mark.parametrize("name", SYNTAXES)
async def test_pixels_are_stored_in_another_encoding_and_read_back_the_same(name: str) -> None:
    bucket = MemoryBucket()
    source = P10 / "CT_small.dcm"

    report = await ingest([source], bucket, target=Target(name))

    assert [note.path for note in report.new] == [str(source)]
    objects = await everything(bucket)
    key = key_of(report)
    ((uid, entry),) = entries_of(objects, key).items()
    start = entry["headers"]["start_byte"]
    data = objects[key.tar][start : start + entry["size"]]
    assert entry["size"] < source.stat().st_size
    assert entry["crc32c"] == base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
    assert attributes_of(entry)["00020010"]["Value"] == [SYNTAXES[name]]
    assert entry["original_path"] == source.name
    dataset, original = read_quietly(data), read_quietly(source)
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[name]
    assert uid == dataset.SOPInstanceUID == original.SOPInstanceUID
    if name == "j2k":  # pydicom decodes no other here; what the codecs promise is shown in tests/pixels
        assert np.array_equal(dataset.pixel_array, original.pixel_array)


async def test_the_file_as_it_came_is_remembered_and_is_the_same_when_it_comes_again() -> None:
    bucket = RecordingBucket(MemoryBucket())
    report = await ingest(CT[:2], bucket, target=Target.J2K)
    key = key_of(report)
    document = json.loads(decompress((await everything(bucket))[key.metadata]))
    bucket.reset()

    again = await ingest(CT[:2], bucket, target=Target.J2K)
    plain = await ingest(CT[:2], bucket)

    for path in CT[:2]:
        data, uid = path.read_bytes(), read_quietly(path).SOPInstanceUID
        checksum = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
        if document["cod"]["instances"][uid]["crc32c"] != checksum:
            assert document["codweb_originals"][uid] == {
                "size": len(data),
                "crc32c": checksum,
                "transfer_syntax_uid": read_quietly(path).file_meta.TransferSyntaxUID,
                "stored_crc32c": document["cod"]["instances"][uid]["crc32c"],
            }
    assert document["codweb_originals"]
    for later in (again, plain):
        assert [note.outcome for note in later.series] == [Outcome.UNCHANGED]
        assert (len(later.same), later.is_clean) == (2, True)
    assert bucket.bytes_sent() == 0


async def test_originals_of_earlier_instances_stay_remembered() -> None:
    bucket = MemoryBucket()
    await ingest(CT[:2], bucket, target=Target.J2K)
    await ingest(CT[:4], bucket, target=Target.JLS)

    report = await ingest(CT, bucket)

    assert (len(report.new), len(report.same), report.conflict) == (2, 4, [])


async def test_what_cannot_be_transcoded_keeps_its_bytes(tmp_path: Path) -> None:
    path = made(tmp_path / "no-pixels", "1.2.3.4")

    report = await ingest([path], bucket := MemoryBucket(), target=Target.J2K)

    objects = await everything(bucket)
    key = key_of(report)
    assert objects[key.tar][1536:][: path.stat().st_size] == path.read_bytes()
    assert "codweb_originals" not in json.loads(decompress(objects[key.metadata]))


async def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await ingest(CT, MemoryBucket(), target=Target.HTJ2K)

    assert list(tmp_path.iterdir()) == []


async def test_what_is_remembered_counts_only_while_the_transcoded_bytes_are_stored(tmp_path: Path) -> None:
    """Whoever removes an instance, or replaces it, may know nothing of the field."""
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:2], bucket, target=Target.J2K))
    uid = read_quietly(CT[0]).SOPInstanceUID
    async with writing(bucket, key) as series:
        await series.commit(Change(remove=frozenset({uid})))
    assert uid in json.loads(decompress((await everything(bucket))[key.metadata]))["codweb_originals"]
    (tmp_path / "other.dcm").write_bytes(CT[0].read_bytes()[:-2] + b"\1\2")
    assert len((await ingest([tmp_path], bucket)).new) == 1

    report = await ingest(CT[:1], bucket)

    assert (len(report.new), len(report.same), len(report.conflict)) == (0, 0, 1)


@pytest.mark.parametrize("name", ["mkstemp", "TemporaryDirectory"])
async def test_full_temporary_folder_fails_the_series_and_says_why(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"storage.ingest.transcoding.tempfile.{name}", full)

    report = await ingest(CT, bucket := MemoryBucket(), target=Target.J2K)

    (note,) = report.series
    assert note.outcome is Outcome.FAILED
    assert note.message == "transcoded files cannot be kept in the temporary folder: No space left on device"
    assert await everything(bucket) == {}


async def test_process_that_dies_of_transcoding_fails_the_series_and_not_the_ingest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def died(*_: object) -> None:
        raise BrokenProcessPool("a process was killed")

    monkeypatch.setattr("storage.ingest.writer.remake", died)

    report = await ingest(CT, MemoryBucket(), target=Target.J2K)

    assert [(note.outcome, note.message) for note in report.series] == [
        (Outcome.FAILED, "a process that transcoded files died; was there memory enough?")
    ]
