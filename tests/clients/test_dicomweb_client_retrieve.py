"""dicomweb-client, retrieving: instances, frames and bulk data are those of the files, bit for bit."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import DataElement, Dataset
from pydicom.uid import UID, ExplicitVRBigEndian
from requests import Session

from tests.clients.answers import digest
from tests.clients.conftest import Server, Source, Sources, refused

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:pydicom\..*")  # some files are wrong on purpose

MULTIFRAME, PDF = "emri_small_big_endian.dcm", "syn_encapsulated_pdf.dcm"

LARGEST_STUDY = "1.2.826.0.1.3680043.8.498.12356127604533793127098560674655651257"

IN_DOUBT = "syn_j2k_bot_short.dcm"
"""Its offset table and NumberOfFrames disagree about where frames 3 and 4 begin: these two are refused."""

COMPRESSED = {
    "SC_rgb_jpeg_dcmtk.dcm": ("image/jpeg", "1.2.840.10008.1.2.4.50"),
    "JPGExtended.dcm": ("image/jpeg", "1.2.840.10008.1.2.4.51"),
    "JPEG-LL.dcm": ("image/jpeg", "1.2.840.10008.1.2.4.70"),
    "MR_small_jpeg_ls_lossless.dcm": ("image/jls", "1.2.840.10008.1.2.4.80"),
    "693_J2KR.dcm": ("image/jp2", "1.2.840.10008.1.2.4.90"),
    "693_J2KI.dcm": ("image/jp2", "1.2.840.10008.1.2.4.91"),
    "rtdose_rle.dcm": ("image/dicom-rle", "1.2.840.10008.1.2.5"),
}
"""A compressed image of each syntax, and the media type by which the standard names it."""

NATIVE = ["CT_small.dcm", "syn_native_mf16_implicit.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm", "liver.dcm"]
"""Native images: explicit, implicit, big endian, deflated, and of one bit a pixel."""


# Instances


@pytest.mark.parametrize("media_types", [None, (("application/dicom", "*"),), ("application/dicom",)], ids=str)
def test_every_instance_arrives_as_it_was_stored(
    server: Server, sources: Sources, media_types: tuple[Any, ...] | None
) -> None:
    bodies: list[bytes] = []
    with Session() as session:
        client = DICOMwebClient(
            server.root,
            session=session,
            permissive_uid=True,
            callback=lambda answer, **_: bodies.append(answer.content),
        )
        for source in sources.values():
            instance = client.retrieve_instance(*source.uids, media_types=media_types)

            assert instance.SOPInstanceUID == source.instance_uid
            assert source.path.read_bytes() in bodies[-1], source.name


def test_a_named_transfer_syntax_is_the_stored_one_or_refused(client: DICOMwebClient, sources: Sources) -> None:
    source = sources["693_J2KR.dcm"]

    instance = client.retrieve_instance(*source.uids, media_types=(("application/dicom", "1.2.840.10008.1.2.4.90"),))

    assert instance.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    explicit = (("application/dicom", "1.2.840.10008.1.2.1"),)
    assert refused(lambda: client.retrieve_instance(*source.uids, media_types=explicit)) == 406


@pytest.mark.parametrize("chunk_size", [257, 10**6])
def test_a_series_and_a_study_arrive_whole_and_streamed(
    client: DICOMwebClient, sources: Sources, chunk_size: int
) -> None:
    """Chunks of 257 bytes cut delimiters and part headers in two."""
    source = sources["JPEG-LL.dcm"]
    client.set_chunk_size(chunk_size)
    calls: list[Callable[[], Any]] = [
        lambda: client.retrieve_series(*source.uids[:2]),
        lambda: client.iter_series(*source.uids[:2]),
        lambda: client.retrieve_study(source.study_uid),
        lambda: client.iter_study(source.study_uid),
        lambda: client.retrieve_study(source.study_uid, media_types=(("application/dicom", "*"),)),
    ]
    expected = {other.instance_uid: other for other in sources.of_series(source.series_uid)}
    assert len(expected) == 3
    for call in calls:
        received = {instance.SOPInstanceUID: instance for instance in call()}
        assert received.keys() == expected.keys()
        for uid, instance in received.items():
            assert instance == expected[uid].read()
            assert instance.file_meta == expected[uid].read().file_meta


def test_the_largest_study_arrives_whole(client: DICOMwebClient, sources: Sources) -> None:
    expected = sources.of_study(LARGEST_STUDY)

    received = [instance.SOPInstanceUID for instance in client.iter_study(LARGEST_STUDY)]

    assert sorted(received) == sorted(source.instance_uid for source in expected)


# Frames


def test_every_frame_is_the_oracles(client: DICOMwebClient, sources: Sources) -> None:
    count = 0
    for source in sources.values():
        if not source.frame_hashes or source.name == IN_DOUBT:
            continue
        numbers = list(range(1, len(source.frame_hashes) + 1))

        frames = client.retrieve_instance_frames(*source.uids, numbers)

        assert [digest(frame) for frame in frames] == list(source.frame_hashes), source.name
        count += len(frames)
    assert count > 100


def test_frames_come_in_the_order_asked_with_repeats(client: DICOMwebClient, sources: Sources) -> None:
    source = sources[MULTIFRAME]
    numbers = [10, 1, 3, 3, 2]

    expected = [source.frame_hashes[number - 1] for number in numbers]

    assert [digest(frame) for frame in client.retrieve_instance_frames(*source.uids, numbers)] == expected
    assert [digest(frame) for frame in client.iter_instance_frames(*source.uids, numbers)] == expected


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_frames_come_under_their_media_type(client: DICOMwebClient, sources: Sources, name: str) -> None:
    source, (media_type, syntax) = sources[name], COMPRESSED[name]
    assert source.transfer_syntax_uid == syntax

    for media_types in ((media_type,), ((media_type, syntax),), ((media_type, "*"),), ("image/*",)):
        [frame] = client.retrieve_instance_frames(*source.uids, [1], media_types=media_types)
        assert digest(frame) == source.frame_hashes[0], media_types


@pytest.mark.parametrize("name", COMPRESSED)
def test_frames_that_would_have_to_be_decoded_or_transcoded_are_refused(
    client: DICOMwebClient, sources: Sources, name: str
) -> None:
    source = sources[name]
    other = ("image/jls", "1.2.840.10008.1.2.4.80") if name != "MR_small_jpeg_ls_lossless.dcm" else "image/jp2"

    for media_types in (
        ("application/octet-stream",),
        (("application/octet-stream", "1.2.840.10008.1.2.1"),),
        (other,),
    ):
        assert refused(partial(client.retrieve_instance_frames, *source.uids, [1], media_types)) == 406


@pytest.mark.parametrize("name", NATIVE)
def test_native_frames_come_as_explicit_vr_little_endian(client: DICOMwebClient, sources: Sources, name: str) -> None:
    source = sources[name]
    syntax = "1.2.840.10008.1.2.1"

    for media_types in (
        ("application/octet-stream",),
        (("application/octet-stream", syntax),),
        (("image/jpeg", "1.2.840.10008.1.2.4.50"), ("application/octet-stream", syntax)),
    ):
        [frame] = client.retrieve_instance_frames(*source.uids, [1], media_types=media_types)
        assert digest(frame) == source.frame_hashes[0], media_types
    assert refused(lambda: client.retrieve_instance_frames(*source.uids, [1], ("image/jpeg",))) == 406


def test_frames_in_doubt_are_refused_and_the_rest_is_served(client: DICOMwebClient, sources: Sources) -> None:
    source = sources[IN_DOUBT]

    assert digest(client.retrieve_instance_frames(*source.uids, [1])[0]) == source.frame_hashes[0]
    assert refused(lambda: client.retrieve_instance_frames(*source.uids, [3])) == 500


# Bulk data


def bulkdata_uris(attributes: dict[str, Any], data: Dataset) -> Iterator[tuple[str, str, Any]]:
    """Every BulkDataURI below a data set: the tag, the URI, and the element as pydicom reads it."""
    for tag, attribute in attributes.items():
        element = data[int(tag, 16)]
        if "BulkDataURI" in attribute:
            yield tag, attribute["BulkDataURI"], element
        if attribute["vr"] == "SQ":
            for item, inner in zip(attribute.get("Value", ()), element.value, strict=True):
                yield from bulkdata_uris(item, inner)


def test_every_bulk_data_link_of_the_metadata_leads_to_its_value(
    client: DICOMwebClient, server: Server, sources: Sources
) -> None:
    """The client's `Host` has no port: links made of it alone would lead nowhere."""
    seen: Counter[str] = Counter()
    for source in sources.values():
        attributes, data = client.retrieve_instance_metadata(*source.uids), source.read()
        attributes.pop("00083002")  # added by the server
        links = list(bulkdata_uris(attributes, data))
        for tag, uri, element in links:
            assert uri.startswith(server.root + source.instance_path + "/bulkdata/"), (source.name, uri)
            if source.name == IN_DOUBT:
                continue
            received = client.retrieve_bulkdata(uri)
            if element is data.get(0x7FE00010):
                check_pixels(source, element, received)
            else:
                assert [bytes(element.value)] == received, (source.name, tag)
            seen[tag] += 1
    assert seen["7FE00010"] > 40
    assert seen["00420011"] == 1
    assert len(seen) > 4, seen


def check_pixels(source: Source, pixel_data: DataElement, received: list[bytes]) -> None:
    """Encapsulated pixels come as frames, native ones as one value of little-endian samples."""
    if UID(source.transfer_syntax_uid).is_encapsulated:
        assert [digest(frame) for frame in received] == list(source.frame_hashes), source.name
        return
    stored = bytes(pixel_data.value)
    width = 2 if source.transfer_syntax_uid == ExplicitVRBigEndian and pixel_data.VR == "OW" else 1
    assert received == [b"".join(stored[at : at + width][::-1] for at in range(0, len(stored), width))], source.name


def test_a_range_of_bulk_data_comes_alone(client: DICOMwebClient, server: Server, sources: Sources) -> None:
    source = sources[PDF]
    document = bytes(source.read().EncapsulatedDocument)
    path = source.instance_path + "/bulkdata/00420011"

    answer = server.fetch(path, {"Accept": "application/octet-stream", "Range": "bytes=10-99"})

    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes 10-99/{len(document)}")
    assert answer.content == document[10:100]
    assert list(client.iter_bulkdata(server.root + path)) == [document]
    assert client.retrieve_bulkdata(server.root + path, media_types=("application/octet-stream",)) == [document]
    ranged = client.retrieve_bulkdata(server.root + path, byte_range=(10, 99))
    assert ranged in ([document], [document[10:100]])  # a server may ignore a Range on a multipart (RFC 9110 §14.2)
