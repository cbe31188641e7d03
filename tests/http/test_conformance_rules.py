"""Rules that hold over all resources alike, and those of which docs/conformance.md says that they do not hold yet.

What is not done is tested too: with the answer that the document promises meanwhile, so that the document stays true.
"""

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from tests.http import ALONE, FILE, MADE, STORED, data_set, entries_of, made_uid, resources_of, searches_of, store_of
from tests.support.multipart import parts_of
from tests.support.server import ROOT, Client, serving
from tests.support.stores import instance_path, loaded, series_key

ENTRY = entries_of("append")[0]
KEY = series_key(ENTRY)
INSTANCE = instance_path(ENTRY)
RETRIEVED, SEARCHED = resources_of(ENTRY), searches_of(KEY)
EVERYWHERE = {**RETRIEVED, **{f"search for {name}": path for name, path in SEARCHED.items()}}
MADE_INSTANCE = f"/dicomweb/{MADE.stem}/instances/{made_uid(0)}"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(await loaded("append"), tmp_path) as client:
        yield client


def pixels_of(syntax: str) -> Dataset:
    """Two rows of four 16-bit samples, which little-endian are the bytes 0 to 15; RLE's are not decoded by anybody."""
    made = data_set(0)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.Rows, made.Columns, made.SamplesPerPixel, made.PixelRepresentation = 2, 4, 1, 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PhotometricInterpretation = "MONOCHROME2"
    samples = bytes(range(16))
    if syntax == RLELossless:
        made.PixelData = encapsulate([bytes(64) + samples])
        made["PixelData"].is_undefined_length = True
    elif syntax == ExplicitVRBigEndian:
        made.PixelData = struct.pack(">8H", *struct.unpack("<8H", samples))
    else:
        made.PixelData = samples
    made["PixelData"].VR = "OW" if syntax != RLELossless else "OB"
    return made


async def statuses_without_accept(client: Client) -> dict[str, int]:
    """The status of every resource for a client that says nothing of what it accepts."""
    found = {}
    for name, path in EVERYWHERE.items():
        request = client.build_request("GET", path)
        del request.headers["accept"]
        found[name] = (await client.send(request)).status_code
    return found


@pytest.mark.parametrize(("strict", "status"), [(False, 200), (True, 406)])
async def test_no_accept_means_anything_and_to_the_letter_406(tmp_path: Path, strict: bool, status: int) -> None:
    """G1: PS3.18 §8.7.5, §8.7.7."""
    async with serving(await loaded("append"), tmp_path, strict=strict) as client:
        assert await statuses_without_accept(client) == dict.fromkeys(EVERYWHERE, status)


DEFAULTS = {
    ("series metadata", "*/*"): "application/dicom+json",
    ("series metadata", "application/*"): "application/dicom+json",
    ("search for studies", "*/*"): "application/dicom+json",
    ("search for studies", "application/*"): "application/dicom+json",
    ("instance", "*/*"): 'multipart/related; type="application/dicom"',
    ("instance", "application/*"): "application/dicom",
    ("series", "multipart/*"): 'multipart/related; type="application/dicom"',
    ("frame", "*/*"): 'multipart/related; type="application/octet-stream"',
    ("frame", "application/*"): "application/octet-stream",
    ("bulk data", "*/*"): "application/octet-stream",
    ("bulk data", "multipart/*"): 'multipart/related; type="application/octet-stream"',
}


async def test_a_wildcard_means_the_default_of_the_resource(client: Client) -> None:
    """G2: PS3.18 §8.7.7."""
    for (name, accept), media_type in DEFAULTS.items():
        response = await client.get(EVERYWHERE[name], headers={"accept": accept})

        assert response.status_code == 200, (name, accept)
        assert response.headers["content-type"].startswith(media_type), (name, accept)


@pytest.mark.parametrize(
    ("name", "accept", "media_type"),
    [
        ("instance", "image/jpeg, application/dicom", "application/dicom;"),
        ("series metadata", "text/html, image/png, application/dicom+json; q=0.5", "application/dicom+json"),
        ("frame", "image/png, application/octet-stream", "application/octet-stream;"),
    ],
)
async def test_rendered_types_beside_dicom_types_are_passed_over(
    client: Client, name: str, accept: str, media_type: str
) -> None:
    """G5: the letter says 400 (PS3.18 §8.7.5); browsers and viewers mix them, and one of them fits."""
    response = await client.get(RETRIEVED[name], headers={"accept": accept})

    assert response.status_code == 200
    assert (response.headers["content-type"] + ";").startswith(media_type)


async def test_every_single_part_and_every_part_names_its_own_url(client: Client) -> None:
    """G9: PS3.18 §8.4.2, §8.6.1.2. Parameters of the request are no part of the name."""
    alone = {"instance": FILE, "frame": ALONE, "bulk data": ALONE}
    for name, path in RETRIEVED.items():
        if "metadata" in name or name in alone:
            response = await client.get(path + "?quality=1", headers=alone.get(name, {}))
            assert response.headers["content-location"] == ROOT + path.removeprefix("/dicomweb"), name

    frames = parts_of(await client.get(f"{INSTANCE}/frames/1,1", headers=STORED))
    assert [part.headers["content-location"] for part in frames] == [f"{ROOT}{INSTANCE[9:]}/frames/1"] * 2
    files = parts_of(await client.get(RETRIEVED["study"]))
    assert sorted(part.headers["content-location"] for part in files) == sorted(
        ROOT + instance_path(entry)[9:] for entry in entries_of("append")
    )


async def test_the_answer_that_is_not_modified_names_its_url_too(client: Client) -> None:
    """G9, G16: RFC 9110 §15.4.5."""
    path = RETRIEVED["instance metadata"]
    await client.archive.shelf.get(KEY, depth="deep")
    etag = (await client.get(path)).headers["etag"]

    response = await client.get(path, headers={"if-none-match": etag})

    assert response.status_code == 304
    assert response.headers["content-location"] == ROOT + path.removeprefix("/dicomweb")


NAMED_SYNTAXES = [("syn_ct_1.dcm", ExplicitVRLittleEndian), ("OBXXXX1A_rle_2frame.dcm", RLELossless)]


@pytest.mark.parametrize(("source", "syntax"), NAMED_SYNTAXES)
async def test_every_part_and_every_bare_body_names_its_transfer_syntax(
    tmp_path: Path, source: str, syntax: str
) -> None:
    """G10: cornerstone reads Implicit VR Little Endian into whatever names none."""
    entry = next(each for each in entries_of("v2_raw") if each["source"] == source)
    named = f"; transfer-syntax={syntax}"
    async with serving(await loaded("v2_raw"), tmp_path) as client:
        for path, alone in (("", FILE), ("/frames/1", ALONE)):
            bare = await client.get(instance_path(entry) + path, headers=alone)
            boxed = await client.get(instance_path(entry) + path, headers={"accept": "*/*"})

            assert bare.headers["content-type"].endswith(named), path
            assert boxed.headers["content-type"].endswith(named), path
            assert [part.headers["content-type"].endswith(named) for part in parts_of(boxed)] == [True], path
        if syntax == ExplicitVRLittleEndian:
            bare = await client.get(instance_path(entry) + "/bulkdata/7FE00010", headers=ALONE)
            assert bare.headers["content-type"] == "application/octet-stream" + named


async def test_character_sets_that_we_do_not_have_are_passed_over_in_the_header(client: Client) -> None:
    """G12: PS3.18 §8.8.1: JSON is UTF-8 for everybody."""
    for name in ("search for studies", "series metadata"):
        response = await client.get(EVERYWHERE[name], headers={"accept-charset": "x-none, iso-8859-1; q=0.5"})

        assert response.status_code == 200, name


async def test_parameters_that_a_retrieval_does_not_know_are_ignored(client: Client) -> None:
    """G13: PS3.18 §8.3.2. Weasis, dcm4che and browsers all send some of their own."""
    for name, path in RETRIEVED.items():
        plain = await client.get(path)
        asked = await client.get(path + "?foo=bar&quality=900&includefield=00080060&PatientNmae=x")

        assert asked.status_code == 200, name
        if "metadata" in name:
            assert asked.content == plain.content


async def test_every_answer_names_its_type_and_its_length(client: Client) -> None:
    """G15: PS3.18 §8.4.2, §8.4.3."""
    for name, path in {**EVERYWHERE, "nothing": "/dicomweb/nothing"}.items():
        response = await client.get(path, headers={"accept-encoding": "identity"})

        assert response.headers["content-type"], name
        assert response.headers["content-length"] == str(len(response.content)), name


async def test_a_date_of_the_client_decides_nothing(client: Client) -> None:
    """G16: who has no Last-Modified ignores If-Modified-Since (RFC 9110 §13.1.3)."""
    for name, path in RETRIEVED.items():
        response = await client.get(path, headers={"if-modified-since": "Fri, 31 Dec 2100 00:00:00 GMT"})

        assert response.status_code == 200, name
        assert "last-modified" not in response.headers


async def test_options_is_a_preflight_and_no_capabilities_description_yet(client: Client) -> None:
    """G17: PS3.18 §8.9 wants a description of the service."""
    response = await client.options("/dicomweb/", headers={"accept": "application/vnd.sun.wadl+xml"})

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_the_comma_of_a_frame_list_may_be_percent_encoded(client: Client) -> None:
    """G19."""
    response = await client.get(f"{INSTANCE}/frames/1%2C1", headers=STORED)

    assert len(parts_of(response)) == 2


STRICT_ANSWERS: dict[str, tuple[int, int]] = {
    ExplicitVRLittleEndian: (200, 200),
    ImplicitVRLittleEndian: (200, 406),
    RLELossless: (200, 406),
}


@pytest.mark.parametrize("syntax", STRICT_ANSWERS)
async def test_whoever_names_no_syntax_gets_files_as_stored_and_to_the_letter_406(tmp_path: Path, syntax: str) -> None:
    """W4, G11: PS3.18 §8.7.3 wants Explicit VR Little Endian, which takes decoding."""
    made = pixels_of(syntax)
    store = await store_of([made], tmp_path)
    stored = (tmp_path / "sources" / "0.dcm").read_bytes()
    for strict, status in zip((False, True), STRICT_ANSWERS[syntax], strict=True):
        async with serving(store, tmp_path / f"state{strict}", strict=strict) as client:
            alone = await client.get(MADE_INSTANCE, headers=FILE)
            series = await client.get(f"/dicomweb/{MADE.stem}")
            named = await client.get(MADE_INSTANCE, headers={"accept": "application/dicom; transfer-syntax=*"})

            assert (alone.status_code, series.status_code, named.status_code) == (status, status, 200)
            assert named.content == stored
            if status == 200:
                assert alone.content == parts_of(series)[0].body == stored


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
async def test_implicit_and_big_endian_files_leave_as_stored_and_their_frames_as_explicit_little_endian(
    tmp_path: Path, syntax: str
) -> None:
    """G11, W5: the standard bars both syntaxes from the web (PS3.18 §8.7.3); for frames the bar holds."""
    made = pixels_of(syntax)
    async with serving(await store_of([made], tmp_path), tmp_path / "state") as client:
        file = await client.get(MADE_INSTANCE, headers={"accept": "application/dicom; transfer-syntax=*"})
        frame = await client.get(f"{MADE_INSTANCE}/frames/1", headers=ALONE)

        assert file.headers["content-type"] == f"application/dicom; transfer-syntax={syntax}"
        assert file.content == (tmp_path / "sources" / "0.dcm").read_bytes()
        assert frame.headers["content-type"] == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
        assert frame.content == bytes(range(16))


async def test_a_study_of_two_syntaxes_is_sent_whole_or_refused_whole(tmp_path: Path) -> None:
    """W6: PS3.18 §10.4.3.1 would allow 206 for those that fit; a study with images missing looks like a whole one."""
    first, second = pixels_of(ExplicitVRLittleEndian), pixels_of(RLELossless)
    second.file_meta.MediaStorageSOPInstanceUID = second.SOPInstanceUID = UID(made_uid(1))
    path = f"/dicomweb/studies/{MADE.study_uid}"
    async with serving(await store_of([first, second], tmp_path), tmp_path / "state") as client:
        as_stored = await client.get(path, headers={"accept": 'multipart/related; type="application/dicom"'})
        one_syntax = 'multipart/related; type="application/dicom"; transfer-syntax='
        refused = await client.get(path, headers={"accept": one_syntax + ExplicitVRLittleEndian})
        both = await client.get(
            path, headers={"accept": f"{one_syntax}{ExplicitVRLittleEndian}, {one_syntax}{RLELossless}; q=0.5"}
        )

        named = {part.headers["content-type"].rsplit("=", 1)[1] for part in parts_of(as_stored)}
        assert named == {ExplicitVRLittleEndian, RLELossless}
        assert refused.status_code == 406
        assert made_uid(1) in refused.json()["detail"]
        assert len(parts_of(both)) == 2


async def test_a_series_with_a_torn_instance_is_refused_whole_and_its_other_instances_are_served(
    tmp_path: Path,
) -> None:
    """W10: a study with images missing looks like a whole one; `codweb check` names the one that is torn."""
    entries = entries_of("quirk_double_append_existing")
    async with serving(await loaded("quirk_double_append_existing"), tmp_path) as client:
        series = await client.get(f"/dicomweb/{series_key(entries[0]).stem}")
        alone = [(await client.get(instance_path(entry), headers=FILE)).status_code for entry in entries]
        listed = await client.get(f"/dicomweb/{series_key(entries[0]).stem}/metadata")

    assert series.status_code == 500
    assert sorted(alone) == [200, 200, 500]
    assert len(listed.json()) == len(entries)


async def test_zip_is_not_made_yet(client: Client) -> None:
    """W3: PS3.18 §10.4.4, an option."""
    for name in ("study", "series", "instance"):
        assert (await client.get(RETRIEVED[name], headers={"accept": "application/zip"})).status_code == 406


async def test_metadata_is_an_array_without_file_meta_information_and_names_the_syntax_instead(client: Client) -> None:
    """J15, J3, Q27: group 0002 does not belong to a data set (PS3.18 §F.2)."""
    for name, count in (("study metadata", 4), ("series metadata", 4), ("instance metadata", 1)):
        objects = (await client.get(RETRIEVED[name])).json()

        assert len(objects) == count
        for attributes in objects:
            assert not [tag for tag in attributes if tag.startswith("0002")]
            assert attributes["00083002"] == {"vr": "UI", "Value": [ExplicitVRLittleEndian]}


async def test_links_of_bulk_data_are_absolute_strings(client: Client) -> None:
    """J10: PS3.18 §F.2.6."""
    [attributes] = (await client.get(RETRIEVED["instance metadata"])).json()

    assert attributes["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{ROOT}{INSTANCE[9:]}/bulkdata/7FE00010"}


async def test_json_is_utf_8_without_a_mark_and_says_so_of_itself(tmp_path: Path) -> None:
    """J11, Q33: the character set of the source is gone once its text has been read."""
    made = data_set(0, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    async with serving(await store_of([made], tmp_path), tmp_path / "state") as client:
        for path in ("/dicomweb/studies", "/dicomweb/instances", f"/dicomweb/{MADE.stem}/metadata"):
            response = await client.get(path)

            [attributes] = json.loads(response.content.decode("utf-8"))
            assert response.content.startswith(b"[{")
            assert "Müller".encode() in response.content
            assert attributes["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
            assert attributes["00080005"]["Value"] == ["ISO_IR 192"]


async def test_a_field_list_on_metadata_changes_nothing_yet(client: Client) -> None:
    """W9: an extension of others."""
    whole = await client.get(RETRIEVED["series metadata"])
    asked = await client.get(RETRIEVED["series metadata"] + "?includefield=00080060&excludefield=00100010")

    assert asked.content == whole.content


async def test_a_video_is_one_stream_and_has_no_second_frame(tmp_path: Path) -> None:
    """F6: PS3.18 §8.7.3.3."""
    stream = bytes(range(256)) * 40
    made = pixels_of(ExplicitVRLittleEndian)
    made.file_meta.TransferSyntaxUID = MPEG4HP41
    made.NumberOfFrames = 25
    made.PixelData = encapsulate([stream], has_bot=False)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    async with serving(await store_of([made], tmp_path), tmp_path / "state") as client:
        first = await client.get(f"{MADE_INSTANCE}/frames/1", headers={"accept": "video/mp4"})
        every = await client.get(f"{MADE_INSTANCE}/frames")
        second = await client.get(f"{MADE_INSTANCE}/frames/2")

        assert first.headers["content-type"] == f"video/mp4; transfer-syntax={MPEG4HP41}"
        assert first.content == parts_of(every)[0].body == stream
        assert len(parts_of(every)) == 1
        assert second.status_code == 406
        assert "frame 1" in second.json()["detail"]


async def test_bulk_data_and_pixel_data_at_once_are_404(client: Client) -> None:
    """B2: PS3.18 §10.4.1.1.5, §10.4.1.1.6; one value or frame at a time is there."""
    for resource in ("bulkdata", "pixeldata"):
        for name in ("study", "series", "instance"):
            assert (await client.get(f"{RETRIEVED[name]}/{resource}")).status_code == 404, name


async def test_encapsulated_pixels_at_their_bulk_data_link_come_as_frames(tmp_path: Path) -> None:
    """B4: PS3.18 §10.4.1.1.5."""
    entry = next(each for each in entries_of("v2_raw") if each["source"] == "OBXXXX1A_rle_2frame.dcm")
    async with serving(await loaded("v2_raw"), tmp_path) as client:
        linked = parts_of(await client.get(f"{instance_path(entry)}/bulkdata/7FE00010"))
        frames = parts_of(await client.get(f"{instance_path(entry)}/frames"))

        assert len(linked) == len(entry["oracle_frames"]) > 1
        assert [part.body for part in linked] == [part.body for part in frames]
        assert {part.headers["content-type"] for part in linked} == {f"image/dicom-rle; transfer-syntax={RLELossless}"}


async def test_a_range_of_a_multipart_is_not_given_out(client: Client) -> None:
    """F9: its boundary is another one each time, so parts of two answers do not join."""
    whole = await client.get(f"{INSTANCE}/frames/1", headers=STORED)
    asked = await client.get(f"{INSTANCE}/frames/1", headers={**STORED, "range": "bytes=0-99"})

    assert (asked.status_code, "accept-ranges" in asked.headers) == (200, False)
    assert parts_of(asked)[0].body == parts_of(whole)[0].body
