"""The corpus of real files, stored by `ingest` and asked back over HTTP: every file, every frame, every attribute.

The oracle is pydicom, and for encapsulated pixel data also `tests.support.item_walk`. What the server answers otherwise
than the oracle stands in a table here, with the reason; each table is exact: an entry that is no exception any more
fails as an unlisted one does.
"""

import asyncio
import hashlib
import json
import re
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # DICOM JSON and the manifest are trees of anything

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from typer.testing import CliRunner

from app.cli import commands
from storage.bucket import open_bucket
from storage.ingest import Outcome, ingest
from storage.keys import SeriesKey
from tests.dicom.json_oracle import BASE, PIXEL_TAGS, differences, load, read
from tests.support.item_walk import NotReadable, encapsulated_pixels
from tests.support.multipart import parts_of
from tests.support.server import ROOT, Client, serving

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
NATIVE_SYNTAXES = {"1.2.840.10008.1.2", EXPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}

NO_PREFIX = "not a DICOM file: no DICM after 128 bytes (PS3.10 section 7.1)"
NO_STUDY = "no Study Instance UID"
DICOMDIR = "a DICOMDIR: it lists other files and holds no instance"
SHORT_UID = "study or series UID shorter than the 10 characters COD asks for"

REFUSED = {
    "charsets/chrSQEncoding.dcm": NO_STUDY,
    "charsets/chrSQEncoding1.dcm": NO_STUDY,
    "charsets_orthanc/DICOMDIR": DICOMDIR,
    "dicomdir/DICOMDIR": DICOMDIR,
    "dicomdir/DICOMDIR-bigEnd": DICOMDIR,
    "htj2k/HTJ2KLossless_08_RGB.dcm": NO_STUDY,
    "htj2k/HTJ2K_08_RGB.dcm": NO_STUDY,
    "jpegls/JLSL_08_07_0_1F.dcm": NO_STUDY,
    "jpegls/JLSL_16_15_1_1F.dcm": NO_STUDY,
    "jpegls/JLSL_RGB_ILV0.dcm": NO_PREFIX,
    "jpegls/JLSL_RGB_ILV1.dcm": NO_PREFIX,
    "jpegls/JLSL_RGB_ILV2.dcm": NO_PREFIX,
    "jpegls/JLSN_RGB_ILV0.dcm": NO_PREFIX,
    "jpegls/JPEGLSNearLossless_08.dcm": NO_STUDY,
    "jpegls/JPEGLSNearLossless_16.dcm": NO_STUDY,
    "jpegls/SC_rgb_jls_lossy_line.dcm": NO_STUDY,
    "jpegls/SC_rgb_jls_lossy_sample.dcm": NO_STUDY,
    "malformed/54-implicit-file-meta-info.dcm": NO_PREFIX,
    "malformed/ExplVR_BigEndNoMeta.dcm": NO_PREFIX,
    "malformed/ExplVR_LitEndNoMeta.dcm": NO_PREFIX,
    "malformed/GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": (
        "unreadable: element 00082112 of undefined length is broken at 890"
    ),
    "malformed/GH340.dcm": NO_PREFIX,
    "malformed/OT-PAL-8-face.dcm": NO_PREFIX,
    "malformed/UN_sequence.dcm": NO_STUDY,
    "malformed/empty_charset_LEI.dcm": NO_STUDY,
    "malformed/meta_missing_tsyntax.dcm": NO_STUDY,
    "malformed/no_meta.dcm": NO_PREFIX,
    "malformed/no_meta_group_length.dcm": NO_STUDY,
    "malformed/no_preamble_dicm_in_data": NO_STUDY,
    "pdf_stl/Issue137.dcm": SHORT_UID,
    "private/PrivateMDNTags.dcm": NO_PREFIX,
    "private/PrivateMDNTags.dic": NO_PREFIX,
    "private/nested_priv_SQ.dcm": NO_STUDY,
    "private/priv_SQ.dcm": NO_STUDY,
    "rt/rtstruct.dcm": NO_PREFIX,
    "wsi/multiframe.dcm": NO_STUDY,
}

CUT_SHORT = "enhanced/emri_small_jpeg_2k_lossless_too_short.dcm"
WHOLE_TWIN = "enhanced/emri_small_jpeg_2k_lossless.dcm"
"""The same file with the 8 bytes of the sequence delimiter that `CUT_SHORT` lacks; pydicom reads nothing of that one."""
WRONG_SYNTAX = "malformed/20-wrong-transfer-syntax.dcm"
CUT_PLAN = "rt/rtplan_truncated.dcm"

FRAMES_IN_DOUBT = {
    CUT_SHORT: "the file ends before the sequence delimiter, so nobody knows what else is missing",
    WRONG_SYNTAX: "native pixel data under a JPEG-LS transfer syntax: one of the two is a lie",
    CUT_PLAN: "the file ends within an element: whether pixels would follow cannot be told",
}
"""Answered with 500 and the reason, and named by `codweb check`."""

ITEM_WALK_CANNOT = {
    "jpeg_base/SC_rgb_jpeg.dcm": "some elements of its explicit data set lack their VR",
}
"""Encapsulated, and only pydicom reads the frames."""

METADATA_OTHERWISE = {
    CUT_PLAN: re.compile(r"/300A00B0/1/300A0111/1: keys \['300A012C'\]"),  # pydicom keeps the half of a value
    "malformed/Tag-0040-A170-VR-CS.dcm": re.compile(
        # pydicom makes an item of the text that stands where a sequence should be
        r"/0040A020/\d+/0040A730/\d+(/0040A730/\d+)?/0040A170: 0 items of UN, not 1"
    ),
}
"""What the comparison with pydicom says, line for line."""

BULKDATA_IN_DOUBT = {
    (CUT_SHORT, "/7FE00010"): "its frames are in doubt, and there is no other way to send encapsulated pixels",
}


@dataclass(frozen=True)
class Stored:
    """One file of the corpus in a datastore."""

    name: str
    path: Path
    series: SeriesKey
    instance_uid: str

    @property
    def below_root(self) -> str:
        return f"/{self.series.stem}/instances/{self.instance_uid}"

    @property
    def address(self) -> str:
        return f"/dicomweb{self.below_root}"


@dataclass(frozen=True)
class Store:
    """A datastore: a file whose instance UID another one has taken lies in the next."""

    folder: Path
    files: list[Stored]


@dataclass(frozen=True)
class Corpus:
    """All files of the corpus, ingested."""

    manifest: list[dict[str, Any]]
    stores: list[Store]
    refused: dict[str, str]
    state: Path
    known_frames: dict[str, list[bytes]] = field(default_factory=dict)
    """What the oracles read, kept: the files do not change."""

    def frames_of(self, stored: Stored) -> list[bytes]:
        if stored.name not in self.known_frames:
            self.known_frames[stored.name] = frames_by_pydicom(stored.path)
        return self.known_frames[stored.name]

    async def served(self, state: Path | None = None) -> AsyncIterator[tuple[Client, Stored]]:
        """Every stored file with a client of the server that has it; without `state`, deep indexes are built first."""
        for store in self.stores:
            async with serving(open_bucket(str(store.folder)), (state or self.state) / store.folder.name) as client:
                for stored in store.files:
                    if state is None:
                        index = await client.archive.shelf.get(stored.series, depth="deep")
                        assert index.header.depth == "deep"
                    yield client, stored


@pytest.fixture(scope="module")
def corpus(real_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Ingest everything; what is in conflict goes into a further datastore, until nothing is."""
    files = json.loads((real_folder / "manifest.json").read_bytes())["files"]
    folder = tmp_path_factory.mktemp("real")
    stores: list[Store] = []
    refused: dict[str, str] = {}
    waiting = [real_folder / entry["file"] for entry in files]
    while waiting:
        target = folder / f"store{len(stores)}"
        report = asyncio.run(_ingest(waiting, target))
        assert report.new, "nothing was stored, and something is in conflict"
        assert {note.outcome for note in report.series} == {Outcome.STORED}
        assert [note.message for note in report.series if note.message] == []
        assert report.same == []
        refused |= {_name(Path(item.path), real_folder): item.reason for item in report.refused}
        stores.append(
            Store(
                target,
                [
                    Stored(
                        _name(Path(note.path), real_folder),
                        Path(note.path),
                        SeriesKey(note.study_uid, note.series_uid),
                        note.instance_uid,
                    )
                    for note in report.new
                ],
            )
        )
        waiting = [Path(note.path) for note in report.conflict]
    return Corpus(files, stores, refused, folder / "state")


async def _ingest(paths: list[Path], target: Path) -> Any:
    bucket = open_bucket(str(target), create=True)
    try:
        return await ingest(paths, bucket)
    finally:
        await bucket.close()


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


@pytest.fixture(autouse=True)
def _pydicom_keeps_wrong_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config, "convert_wrong_length_to_UN", True)


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_every_file_is_stored_or_refused_for_the_reason_in_the_table(corpus: Corpus, real_folder: Path) -> None:
    stored = [file.name for store in corpus.stores for file in store.files]

    assert corpus.refused == REFUSED
    assert sorted([*stored, *REFUSED]) == sorted(entry["file"] for entry in corpus.manifest)
    for name, reason in REFUSED.items():
        assert _is_true(reason, real_folder / name), name


def _is_true(reason: str, path: Path) -> bool:
    """Whether pydicom, or the bytes, say the same."""
    if reason == NO_PREFIX:
        return path.read_bytes()[128:132] != b"DICM"
    if reason.startswith("unreadable"):
        with pytest.raises(OSError):
            read(path)
        return True
    data_set = read(path)
    if reason == DICOMDIR:
        return bool(data_set.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10")
    study_uid = str(data_set.get("StudyInstanceUID", ""))
    return not study_uid if reason == NO_STUDY else 0 < len(study_uid) < 10


async def test_every_stored_file_comes_back_bit_for_bit(corpus: Corpus) -> None:
    checksums = {entry["file"]: entry["sha256"] for entry in corpus.manifest}
    wrong = []

    async with aclosing(corpus.served()) as files:
        async for client, stored in files:
            response = await client.get(stored.address, headers={"accept": "application/dicom"})

            if response.status_code != 200 or hashlib.sha256(response.content).hexdigest() != checksums[stored.name]:
                wrong.append((stored.name, response.status_code))

    assert wrong == []


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["at first touch", "after a deep build"])
async def test_every_frame_is_the_one_that_pydicom_reads(corpus: Corpus, tmp_path: Path, order: str) -> None:
    """PS3.18 §10.4.1.1.6, PS3.5 §8 and §A.4."""
    wrong = {}
    doubtful = set()
    count = 0

    async with aclosing(corpus.served(tmp_path if order == "at first touch" else None)) as files:
        async for client, stored in files:
            response = await client.get(f"{stored.address}/frames", headers=STORED)
            if response.status_code == 500:
                assert response.json()["error"] == "InstanceUnreadable"
                assert stored.instance_uid in response.json()["detail"]
                doubtful.add(stored.name)
                continue
            expected = corpus.frames_of(stored)
            frames = [part.body for part in parts_of(response)] if response.status_code == 200 else []
            beyond = await client.get(f"{stored.address}/frames/{len(expected) + 1}", headers=STORED)
            if response.status_code != (200 if expected else 404) or frames != expected or beyond.status_code != 404:
                wrong[stored.name] = (
                    response.status_code,
                    [*map(len, frames)],
                    [*map(len, expected)],
                    beyond.status_code,
                )
            elif expected and _syntaxes(response) != {_answered_syntax(stored.path)}:
                wrong[stored.name] = _syntaxes(response), _answered_syntax(stored.path)
            count += len(frames)

    assert wrong == {}
    assert doubtful == set(FRAMES_IN_DOUBT)
    assert count > 2000


def _syntaxes(response: Any) -> set[str]:
    return {str(part.headers.get_param("transfer-syntax")) for part in parts_of(response)}


def _answered_syntax(path: Path) -> str:
    """Encapsulated frames are as they are stored, all others are Explicit VR Little Endian."""
    uid = str(read_file_meta_info(path).TransferSyntaxUID)
    return EXPLICIT_LITTLE_ENDIAN if uid in NATIVE_SYNTAXES else uid


def frames_by_pydicom(path: Path) -> list[bytes]:
    """The frames as pydicom tells them apart, and how DICOMweb sends them: little-endian, beginning at bit 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is here because it is not clean
        data_set = read(path)
        tag = next((tag for tag in PIXEL_TAGS if tag in data_set), None)
        if tag is None or data_set[tag].is_empty:
            return []
        if data_set[tag].is_undefined_length:
            return _fragmented(data_set)
        return _sliced(data_set, little_endian_pixels(data_set, tag))


def _fragmented(data_set: Dataset) -> list[bytes]:
    tables = None
    if "ExtendedOffsetTable" in data_set:
        tables = data_set.ExtendedOffsetTable, data_set.ExtendedOffsetTableLengths
    count = _number_of_frames(data_set)
    return list(generate_frames(data_set.PixelData, number_of_frames=count, extended_offsets=tables))


def _number_of_frames(data_set: Dataset) -> int:
    """1 where it is absent, empty, or the "1A" that one of the files has."""
    try:
        return int(data_set.NumberOfFrames or 1) if "NumberOfFrames" in data_set else 1
    except ValueError:
        return 1


def little_endian_pixels(data_set: Dataset, tag: int) -> bytes:
    """The native value in little-endian order: wide samples are swapped whole, narrow ones in the words of OW."""
    element = data_set[tag]
    value = bytes(element.value)
    sample_bytes = data_set.BitsAllocated // 8
    word_bytes = max(sample_bytes, 2) if element.VR == "OW" else sample_bytes
    if data_set.original_encoding[1] or word_bytes < 2:
        return value
    return np.frombuffer(value, f">u{word_bytes}").astype(f"<u{word_bytes}").tobytes()


def _sliced(data_set: Dataset, value: bytes) -> list[bytes]:
    """Equal parts of the size that the geometry says; a single frame may be shorter than that."""
    count = _number_of_frames(data_set)
    bits = data_set.Rows * data_set.Columns * data_set.get("SamplesPerPixel", 1) * data_set.BitsAllocated
    if data_set.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits // 3 * 2
    if count == 1 and bits > 8 * len(value):
        return [value]
    if bits % 8 == 0:
        return [value[index * bits // 8 : (index + 1) * bits // 8] for index in range(count)]
    unpacked = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")
    return [
        np.packbits(unpacked[index * bits : (index + 1) * bits], bitorder="little").tobytes() for index in range(count)
    ]


def test_pydicom_and_the_item_walk_read_the_same_frames(corpus: Corpus) -> None:
    """Two oracles that share nothing, so that neither has to be believed alone."""
    cannot, differ, compared = set(), [], 0

    for stored in _files(corpus):
        try:
            pixels = encapsulated_pixels(stored.path.read_bytes())
        except NotReadable:
            if _is_encapsulated(stored.path):
                cannot.add(stored.name)
            continue
        frames = pixels.frames()
        if frames != corpus.frames_of(stored):
            differ.append(stored.name)
        compared += len(frames)

    assert differ == []
    assert cannot == {CUT_SHORT, *ITEM_WALK_CANNOT}
    assert compared > 300


def _files(corpus: Corpus) -> Iterator[Stored]:
    for store in corpus.stores:
        yield from store.files


def _is_encapsulated(path: Path) -> bool:
    """Whether Pixel Data of undefined length stands in the file, with or without VR (PS3.5 §7.1)."""
    return re.search(rb"\xe0\x7f\x10\0(O[BW]\0\0)?\xff{4}", path.read_bytes()) is not None


# --- metadata and bulk data -------------------------------------------------------------------------------------------


async def test_metadata_is_what_pydicom_reads(corpus: Corpus) -> None:
    """PS3.18 Annex F, at every depth; the deliberate differences are those of `tests.dicom.json_oracle`."""
    wrong: dict[str, list[str]] = {}

    async with aclosing(corpus.served()) as files:
        async for client, stored in files:
            response = await client.get(f"{stored.address}/metadata")

            assert (response.status_code, response.headers["x-cod-metadata"]) == (200, "deep"), stored.name
            lines = _metadata_differences(response.content, stored)
            expected = METADATA_OTHERWISE.get(stored.name)
            if expected is None:
                if lines:
                    wrong[stored.name] = lines
            elif not lines or not all(expected.fullmatch(line) for line in lines):
                wrong[stored.name] = ["not what the table says", *lines]

    assert wrong == {}


def _metadata_differences(body: bytes, stored: Stored) -> list[str]:
    base = f"{ROOT}{stored.below_root}/bulkdata"
    attributes = load(body.strip().removeprefix(b"[").removesuffix(b"]").replace(base.encode(), BASE.encode()))
    data_set = read(_readable(stored))
    available = attributes.pop("00083002")
    found = differences(attributes, data_set, little_endian=bool(data_set.original_encoding[1]))
    if available != {"vr": "UI", "Value": [data_set.file_meta.TransferSyntaxUID]}:
        found.append(f"AvailableTransferSyntaxUID is {available}")
    return found


def _readable(stored: Stored) -> Path:
    """The file to let pydicom read: the whole twin of the one that is cut."""
    if stored.name != CUT_SHORT:
        return stored.path
    twin = stored.path.parent.parent / WHOLE_TWIN
    assert twin.read_bytes()[:-8] == stored.path.read_bytes()
    return twin


async def test_every_bulkdata_uri_leads_to_the_value(corpus: Corpus) -> None:
    """PS3.18 §10.4.1.1.5: encapsulated pixels come as their frames, everything else as one little-endian value."""
    wrong, doubtful, count = [], set(), 0

    async with aclosing(corpus.served()) as files:
        async for client, stored in files:
            [attributes] = (await client.get(f"{stored.address}/metadata")).json()
            data_set = None
            for path, uri in _bulkdata_uris(attributes):
                assert uri == f"{ROOT}{stored.below_root}/bulkdata{path}"
                response = await client.get(uri, headers=STORED)
                count += 1
                if response.status_code == 500:
                    doubtful.add((stored.name, path))
                    continue
                data_set = data_set or read(_readable(stored))
                if response.status_code != 200 or [part.body for part in parts_of(response)] != _values_at(
                    data_set, path, corpus, stored
                ):
                    wrong.append((stored.name, path, response.status_code))

    assert wrong == []
    assert doubtful == set(BULKDATA_IN_DOUBT)
    assert count > 500


def _bulkdata_uris(attributes: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The attribute path and address of every bulk value, in items too."""
    for key, member in attributes.items():
        if "BulkDataURI" in member:
            yield f"{path}/{key}", member["BulkDataURI"]
        if member["vr"] == "SQ":
            for number, item in enumerate(member.get("Value", []), 1):
                yield from _bulkdata_uris(item, f"{path}/{key}/{number}")


def _values_at(data_set: Dataset, path: str, corpus: Corpus, stored: Stored) -> list[bytes]:
    """The parts that must be sent for a path."""
    steps = path.strip("/").split("/")
    tag = int(steps[-1], 16)
    inner = data_set
    for sequence, number in zip(steps[:-1:2], steps[1::2], strict=True):
        inner = inner[int(sequence, 16)].value[int(number) - 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, on values that are odd on purpose
        element = inner[tag]
    if tag in PIXEL_TAGS and len(steps) == 1:
        return corpus.frames_of(stored) if element.is_undefined_length else [little_endian_pixels(data_set, tag)]
    assert data_set.original_encoding[1] or element.VR in ("OB", "UN"), "the order of these words is not tested here"
    return [bytes(element.value)]


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_finds_nothing_but_the_frames_in_doubt(corpus: Corpus) -> None:
    found = {}

    for store in corpus.stores:
        result = CliRunner().invoke(commands, ["check", str(store.folder), "--all-bytes", "--json"])
        names = {(file.series, file.instance_uid): file.name for file in store.files}
        findings = json.loads(result.stdout)["findings"]
        for finding in findings:
            key = SeriesKey(finding["study_uid"], finding["series_uid"])
            found[names[key, finding["instance_uid"]]] = finding["severity"], finding["kind"]
        assert result.exit_code == (1 if findings else 0)

    assert found == dict.fromkeys(FRAMES_IN_DOUBT, ("error", "doubtful frames"))
