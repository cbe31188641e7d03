"""What `codweb demo` makes, read back by pydicom, numpy and tarfile: it must be DICOM that any viewer opens."""

import io
import re
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from app.demo.build import DemoRefused, build_demo, series_key
from app.demo.cine import rle_frame
from app.demo.contents import CONTENTS, Making
from app.demo.documents import pdf_page
from storage.bucket import open_bucket
from storage.bucket.memory import MemoryBucket

SMALL = tuple(making for making in CONTENTS if making.series.name in ("report", "letter"))


def read_back(dataset: Dataset) -> pydicom.FileDataset:
    """An instance as a file, read by pydicom."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    file.seek(0)
    return pydicom.dcmread(file)


def made(name: str) -> list[pydicom.FileDataset]:
    [making] = [making for making in CONTENTS if making.series.name == name]
    return [read_back(dataset) for dataset in making.make()]


@pytest.fixture(scope="module")
def instances() -> dict[str, list[pydicom.FileDataset]]:
    """Every instance of the demo, by the name of its series."""
    return {making.series.name: made(making.series.name) for making in CONTENTS}


def positions(slices: list[pydicom.FileDataset]) -> NDArray[np.float64]:
    return np.array([dataset.ImagePositionPatient for dataset in slices], float)


def stack(slices: list[pydicom.FileDataset]) -> NDArray[np.float64]:
    """Stored values × slope + intercept, as [slice, row, column]."""
    return np.stack(
        [d.pixel_array * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0)) for d in slices]
    )


def value_at(slices: list[pydicom.FileDataset], point: tuple[float, float, float]) -> float:
    """The mean of 3 × 3 pixels round a point of the patient, by the plane equation (PS3.3 §C.7.6.2.1.1)."""
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    nearest = int(np.abs((positions(slices) - point) @ normal).argmin())
    offset = np.array(point) - positions(slices)[nearest]
    row_step, column_step = (float(step) for step in slices[0].PixelSpacing)
    row, column = round(offset @ along_column / row_step), round(offset @ along_row / column_step)
    return float(stack([slices[nearest]])[0, row - 1 : row + 2, column - 1 : column + 2].mean())


def test_every_series_holds_what_it_says_and_nobody(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    seen = set()
    for making in CONTENTS:
        datasets = instances[making.series.name]
        assert len(datasets) == making.instances
        for number, dataset in enumerate(datasets, start=1):
            assert dataset.StudyInstanceUID == making.series.study.study_uid
            assert dataset.SeriesInstanceUID == making.series.series_uid
            assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            assert dataset.InstanceNumber == number
            assert str(dataset.PatientName).startswith("Demo^")
            assert dataset.PatientIdentityRemoved == "YES"
            assert re.fullmatch(r"2\.25\.(0|[1-9]\d{0,38})", dataset.SOPInstanceUID)
            seen.add(dataset.SOPInstanceUID)
    assert len(seen) == sum(making.instances for making in CONTENTS)
    assert len({making.series.study.study_uid for making in CONTENTS}) == 4


def test_every_value_keeps_the_rules_of_its_vr(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    """PS3.5 §6.2: pydicom checks lengths and characters when a value is set under RAISE."""
    for datasets in instances.values():
        for element in datasets[0].iterall():
            if element.VR not in ("SQ", "OB", "OW", "OB or OW"):
                pydicom.DataElement(element.tag, element.VR, element.value, validation_mode=pydicom.config.RAISE)


@pytest.mark.parametrize(("name", "least"), [("head", 60), ("t1", 60), ("t2", 60)])
def test_volumes_are_evenly_spaced_along_their_normal(
    instances: dict[str, list[pydicom.FileDataset]], name: str, least: int
) -> None:
    slices = instances[name]
    orientation = np.array(slices[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])

    steps = np.diff(positions(slices) @ normal)

    assert len(slices) >= least
    assert np.allclose(np.abs(steps), float(slices[0].SpacingBetweenSlices), atol=1e-3)
    assert {dataset.FrameOfReferenceUID for dataset in slices} == {slices[0].FrameOfReferenceUID}
    assert all(list(dataset.ImageOrientationPatient) == list(orientation) for dataset in slices)


def test_ct_holds_hounsfield_units(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    ct = instances["head"]

    assert value_at(ct, (-105, -100, 20)) == pytest.approx(-1000, abs=25)
    assert value_at(ct, (27, 8, 12)) == pytest.approx(70, abs=10)  # the lesion
    assert value_at(ct, (-10, 3, 20)) == pytest.approx(8, abs=10)  # a ventricle
    assert stack(ct).max() > 900  # bone


def test_both_mr_contrasts_show_the_same_head_in_one_frame_of_reference(
    instances: dict[str, list[pydicom.FileDataset]],
) -> None:
    t1, t2 = instances["t1"], instances["t2"]
    ventricle, white_matter = (-10.0, 3.0, 20.0), (-20.0, 5.0, 32.0)

    assert t1[0].FrameOfReferenceUID == t2[0].FrameOfReferenceUID
    assert value_at(t1, ventricle) < 0.5 * value_at(t1, white_matter)
    assert value_at(t2, ventricle) > 1.8 * value_at(t2, white_matter)


def test_enhanced_mr_has_a_place_for_each_frame(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    """PS3.3 §C.7.6.16: one item of the per-frame functional groups for each frame."""
    [enhanced] = instances["enhanced"]
    groups = enhanced.PerFrameFunctionalGroupsSequence
    heights = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in groups]
    measures = enhanced.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]

    assert len(groups) == enhanced.NumberOfFrames == len(enhanced.pixel_array)
    assert np.allclose(np.diff(heights), float(measures.SpacingBetweenSlices), atol=1e-3)
    assert [group.FrameContentSequence[0].InStackPositionNumber for group in groups] == list(range(1, len(groups) + 1))
    assert enhanced.pixel_array.std(axis=(1, 2)).min() > 50


def test_cine_decodes_and_moves(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    [cine] = instances["cine"]

    frames = cine.pixel_array

    assert frames.shape == (cine.NumberOfFrames, cine.Rows, cine.Columns)
    assert cine.file_meta.TransferSyntaxUID.name == "RLE Lossless"
    for before, after in pairwise(frames):
        assert np.abs(before.astype(int) - after).mean() > 1


@pytest.mark.parametrize("columns", [1, 2, 127, 128, 129, 130, 300])
def test_rle_of_any_width_is_read_back(columns: int) -> None:
    random = np.random.default_rng(columns)
    frame = np.repeat(random.integers(0, 256, (5, columns), np.uint8), 2, axis=0)
    frame[3] = 7

    from pydicom.pixels.decoders.rle import _rle_decode_frame  # the reference decoder of one frame

    assert _rle_decode_frame(rle_frame(frame), 10, columns, 1, 8) == frame.tobytes()


def test_slide_is_tiled_fully_in_three_resolutions(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    """PS3.3 §C.7.6.17.3: tiles from left to right, then from top to bottom."""
    sides = []
    for level in instances["slide"]:
        side = level.TotalPixelMatrixColumns
        assert level.TotalPixelMatrixRows == side
        assert level.NumberOfFrames == (side // level.Rows) ** 2
        assert level.ImagedVolumeWidth == pytest.approx(
            side * float(level.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0])
        )
        sides.append(side)

    assert sides == [4096, 1024, 256]


def test_coarse_tile_shows_the_same_tissue_as_the_fine_tiles_in_its_place(
    instances: dict[str, list[pydicom.FileDataset]],
) -> None:
    fine, middle, coarse = (tiles(level) for level in instances["slide"])

    assert all(tile.shape == (256, 256, 3) for tile in (*fine, *middle, *coarse))
    for shown, detail in ((coarse, middle), (middle, fine)):
        per_side = int(len(detail) ** 0.5)
        whole = np.vstack([np.hstack(detail[row * per_side : (row + 1) * per_side]) for row in range(per_side)])
        shrunk = whole.reshape(len(whole) // 4, 4, len(whole) // 4, 4, 3).mean(axis=(1, 3))
        wide = int(len(shown) ** 0.5)
        seen = np.vstack([np.hstack(shown[row * wide : (row + 1) * wide]) for row in range(wide)])
        assert np.abs(shrunk - seen).mean() < 6
        assert seen.std() > 15


def tiles(level: pydicom.FileDataset) -> list[NDArray[Any]]:
    return [
        imagecodecs.jpeg8_decode(frame)
        for frame in generate_frames(level.PixelData, number_of_frames=level.NumberOfFrames)
    ]


def test_report_points_to_a_slice_of_the_ct(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    [report] = instances["report"]
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in instances["head"]}
    [image] = [item for item in report.ContentSequence[3].ContentSequence if item.ValueType == "IMAGE"]

    shown = by_uid[image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID]

    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == shown.SeriesInstanceUID
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == shown.SOPInstanceUID
    assert abs(float(shown.ImagePositionPatient[2]) - 12) <= 1


def test_letter_is_a_pdf_whose_table_points_to_its_objects(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    """ISO 32000-1 §7.5.4: the cross-reference table holds the byte offset of each object."""
    [letter] = instances["letter"]
    document = letter.EncapsulatedDocument[: letter.EncapsulatedDocumentLength]

    assert document.startswith(b"%PDF-1.4")
    assert document.endswith(b"%%EOF\n")
    start = int(document.split(b"startxref\n")[1].split(b"\n")[0])
    assert document[start : start + 5] == b"xref\n"
    offsets = re.findall(rb"^(\d{10}) 00000 n $", document[start:], re.MULTILINE)
    assert len(offsets) == 6
    for number, offset in enumerate(offsets, start=1):
        assert document[int(offset) :].startswith(b"%d 0 obj" % number)
    length = int(re.search(rb"/Length (\d+) >>\nstream\n", document)[1])  # type: ignore[index]  # asserted by the test
    assert document.partition(b">>\nstream\n")[2][length:].startswith(b"\nendstream")


def test_brackets_in_text_do_not_end_a_pdf_string() -> None:
    assert rb"(a \(b\) \\ c)" in pdf_page("a (b) \\ c", ())


def test_making_it_again_makes_the_same_bytes(instances: dict[str, list[pydicom.FileDataset]]) -> None:
    for name in ("report", "letter", "enhanced"):
        again = made(name)
        assert [dataset.to_json() for dataset in again] == [dataset.to_json() for dataset in instances[name]]


async def test_demo_becomes_a_datastore_of_whole_series(tmp_path: Path) -> None:
    bucket = open_bucket(tmp_path / "demo", create=True)
    heard: list[str] = []

    await build_demo(bucket, contents=SMALL, advance=lambda making, count: heard.append(making.series.name))
    await bucket.close()

    assert heard == ["report", "letter"]
    for making in SMALL:
        with tarfile.open(tmp_path / "demo" / series_key(making).tar) as tar:
            stored = [pydicom.dcmread(io.BytesIO(data)) for data in members(tar)]
        assert [dataset.SOPInstanceUID for dataset in stored] == [making.series.instance_uid(1)]


def members(tar: tarfile.TarFile) -> Iterator[bytes]:
    for member in tar:
        content = tar.extractfile(member)
        assert content is not None
        yield content.read()


async def test_complete_demo_is_left_alone() -> None:
    bucket = MemoryBucket("demo")
    await build_demo(bucket, contents=SMALL)
    before = [info async for info in bucket.list("")]

    again = await build_demo(bucket, contents=SMALL)

    assert again == []
    assert [info async for info in bucket.list("")] == before


@pytest.mark.parametrize("lost", ["metadata", "tar"])
async def test_demo_that_was_broken_off_is_completed(lost: str) -> None:
    bucket = MemoryBucket("demo")
    await build_demo(bucket, contents=SMALL)
    await bucket.delete(getattr(series_key(SMALL[1]), lost))

    again = await build_demo(bucket, contents=SMALL)

    assert again == [SMALL[1]]
    await bucket.head(series_key(SMALL[1]).tar)
    await bucket.head(series_key(SMALL[1]).metadata)


async def test_locked_series_is_refused_unless_forced() -> None:
    bucket = MemoryBucket("demo")
    await bucket.create(series_key(SMALL[0]).lock, b"{}")

    with pytest.raises(DemoRefused, match="locked"):
        await build_demo(bucket, contents=SMALL)
    forced = await build_demo(bucket, contents=SMALL, force=True)

    assert forced == list(SMALL)
    assert series_key(SMALL[0]).lock not in {info.key async for info in bucket.list("")}


@pytest.mark.parametrize("foreign", ["notes.txt", "studies/1.2.3/series/1.2.4.tar"])
async def test_datastore_of_somebody_else_is_refused_and_not_touched(foreign: str) -> None:
    bucket = MemoryBucket("demo")
    await bucket.write(foreign, b"dear to somebody")

    with pytest.raises(DemoRefused, match=re.escape(foreign)):
        await build_demo(bucket, contents=SMALL, force=True)

    assert [info.key async for info in bucket.list("")] == [foreign]


async def test_series_that_ingest_cannot_store_is_an_error_with_a_reason(tmp_path: Path) -> None:
    def nothing() -> Iterator[Dataset]:
        return iter(())

    broken = Making(SMALL[0].series, 1, nothing)

    with pytest.raises(DemoRefused, match="could not be stored"):
        await build_demo(MemoryBucket("demo"), contents=(broken,))
