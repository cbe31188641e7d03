"""`codweb ingest --thumbnails`: a picture beside the series, and what metadata.json says of it."""

import gzip
import json
from pathlib import Path

import imagecodecs
import pytest
from pydicom import dcmread

from storage.bucket import Bucket
from storage.bucket.memory import MemoryBucket
from storage.errors import ObjectNotFound, StorageUnavailable
from storage.ingest import Outcome, ingest
from storage.keys import SeriesKey, SeriesObject
from tests.ingest.reading import CT, P10, key_of
from tests.support.buckets import FailingBucket

ONE_FRAME = CT[:1]


async def document(bucket: Bucket, key: SeriesKey) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(gzip.decompress(bytes((await bucket.read(key.metadata)).data)))
    return found


async def test_a_series_of_one_frame_gets_a_picture_and_anchors_to_its_pixels() -> None:
    bucket = MemoryBucket("thumbnails")

    report = await ingest(ONE_FRAME, bucket, thumbnails=True)

    key = key_of(report)
    picture = imagecodecs.jpeg8_decode(bytes((await bucket.read(key.object_key(SeriesObject.THUMBNAIL_IMAGE))).data))
    source = dcmread(ONE_FRAME[0])
    named = (await document(bucket, key))["thumbnail"]
    (frames,) = (each["frames"] for each in named["instances"].values())  # type: ignore[attr-defined]  # JSON of any shape
    assert picture.shape[:2] == (128, 128)
    assert named["uri"] == f"{bucket.url.rstrip('/')}/{key.stem}/thumbnail.jpg"
    assert named["thumbnail_index_to_instance_frame"] == [[source.SOPInstanceUID, 0]]
    assert frames[0]["anchors"]["original_size"] == {"width": source.Columns, "height": source.Rows}


async def test_without_the_option_there_is_none() -> None:
    bucket = MemoryBucket("no-thumbnails")

    report = await ingest(ONE_FRAME, bucket)

    with pytest.raises(ObjectNotFound):
        await bucket.head(key_of(report).object_key(SeriesObject.THUMBNAIL_IMAGE))
    assert "thumbnail" not in await document(bucket, key_of(report))


async def test_a_series_that_grows_to_a_film_without_ffmpeg_keeps_its_picture_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = MemoryBucket("film")
    await ingest(ONE_FRAME, bucket, thumbnails=True)
    monkeypatch.setenv("PATH", str(tmp_path))

    report = await ingest(CT, bucket, thumbnails=True)

    (note,) = report.series
    assert note.outcome is Outcome.APPENDED
    assert note.message is not None
    assert "ffmpeg" in note.message
    assert (await document(bucket, key_of(report)))["thumbnail"]


async def test_a_picture_that_cannot_be_written_is_a_complaint_and_the_series_is_stored() -> None:
    bucket = FailingBucket(MemoryBucket("failing"))
    bucket.fail("write", lambda key: key.endswith("thumbnail.jpg"), StorageUnavailable("full"))

    report = await ingest(ONE_FRAME, bucket, thumbnails=True)

    (note,) = report.series
    assert (note.outcome, note.message) == (Outcome.STORED, "no thumbnail: full")
    key = key_of(report)
    assert len((await document(bucket, key))["cod"]["instances"]) == 1  # type: ignore[arg-type]  # JSON of any shape
    with pytest.raises(ObjectNotFound):
        await bucket.head(key.lock)


async def test_a_series_without_pixels_has_none_and_nothing_to_complain_of() -> None:
    report = await ingest([P10 / "test-SR.dcm"], MemoryBucket("report"), thumbnails=True)

    (note,) = report.series
    assert (note.outcome, note.message) == (Outcome.STORED, None)
