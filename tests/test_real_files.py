"""The corpus of real files, stored by `ingest` and asked back over HTTP: every file, every frame, every attribute.

The oracle is pydicom, and for encapsulated pixel data also `tests.support.item_walk`. What the server answers otherwise
than the oracle stands in a table here, with the reason; each table is exact: an entry that is no exception any more
fails as an unlisted one does.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any  # DICOM JSON is a tree of anything

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from typer.testing import CliRunner

from app.cli import commands
from storage.keys import SeriesKey
from tests.dicom.json_oracle import BASE, PIXEL_TAGS, differences, load, read
from tests.support.corpus import Corpus, Stored, store_corpus
from tests.support.item_walk import NotReadable, encapsulated_pixels
from tests.support.multipart import parts_of
from tests.support.pydicom_frames import little_endian_pixels
from tests.support.server import ROOT

pytestmark = pytest.mark.long

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
NATIVE_SYNTAXES = {"1.2.840.10008.1.2", EXPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}

NO_PREFIX = "not a DICOM file: no DICM after 128 bytes (PS3.10 section 7.1)"
NO_STUDY = "no Study Instance UID"
SHORT_UID = "study or series UID shorter than the 10 characters COD asks for"

REFUSED = {
    "charsets/chrSQEncoding.dcm": NO_STUDY,
    "charsets/chrSQEncoding1.dcm": NO_STUDY,
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


@pytest.fixture(scope="module")
def corpus(real_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Everything in datastores of ours; about 7 seconds."""
    return store_corpus(real_folder, tmp_path_factory.mktemp("real"))


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
    wrong: dict[str, object] = {}
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


def _syntaxes(response: httpx.Response) -> set[str]:
    return {str(part.headers.get_param("transfer-syntax")) for part in parts_of(response)}


def _answered_syntax(path: Path) -> str:
    """Encapsulated frames are as they are stored, all others are Explicit VR Little Endian."""
    uid = str(read_file_meta_info(path).TransferSyntaxUID)
    return EXPLICIT_LITTLE_ENDIAN if uid in NATIVE_SYNTAXES else uid


def test_pydicom_and_the_item_walk_read_the_same_frames(corpus: Corpus) -> None:
    """Two oracles that share nothing, so that neither has to be believed alone."""
    cannot, differ, compared = set(), [], 0

    for stored in corpus.files():
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


def _is_encapsulated(path: Path) -> bool:
    """Whether Pixel Data of undefined length stands in the file, with or without VR (PS3.5 §7.1)."""
    return re.search(rb"\xe0\x7f\x10\0(O[BW]\0\0)?\xff{4}", path.read_bytes()) is not None


# --- metadata and bulk data -------------------------------------------------------------------------------------------


async def test_metadata_is_what_pydicom_reads(corpus: Corpus) -> None:
    """PS3.18 Annex F, at every depth; the deliberate differences are those of `tests.dicom.json_oracle`."""
    wrong: dict[str, list[str]] = {}
    otherwise = set()

    async with aclosing(corpus.served()) as files:
        async for client, stored in files:
            response = await client.get(f"{stored.address}/metadata")

            assert (response.status_code, response.headers["x-cod-metadata"]) == (200, "deep"), stored.name
            lines = _metadata_differences(response.content, stored)
            pattern = METADATA_OTHERWISE.get(stored.name)
            if lines and pattern is not None and all(pattern.fullmatch(line) for line in lines):
                otherwise.add(stored.name)
            elif lines:
                wrong[stored.name] = lines

    assert wrong == {}
    assert otherwise == set(METADATA_OTHERWISE)


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
