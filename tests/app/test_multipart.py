"""Multipart bodies as the standard library, dicomweb-client and cornerstone read them (PS3.18 §8.6.1.2)."""

import email
import re
from collections.abc import AsyncIterator, Iterable

import pytest
import requests
from dicomweb_client.web import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st

from app.multipart import Buffer, Multipart, PartHead
from storage.errors import CorruptSeries

RLE = "1.2.840.10008.1.2.5"
HEAD = PartHead(
    f"image/dicom-rle; transfer-syntax={RLE}", "http://h/dicomweb/studies/1/series/2/instances/3/frames/1", 3
)


async def in_pieces(*pieces: Buffer) -> AsyncIterator[Buffer]:
    for piece in pieces:
        yield piece


async def as_parts(
    *parts: tuple[PartHead, Iterable[Buffer]],
) -> AsyncIterator[tuple[PartHead, AsyncIterator[Buffer]]]:
    for head, pieces in parts:
        yield head, in_pieces(*pieces)


def read_with_email(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    assert message.is_multipart()
    assert not message.defects
    return [
        (part["Content-Type"], part.get_payload().encode("ascii", "surrogateescape"))  # type: ignore[union-attr]  # a leaf part has text
        for part in message.get_payload()
    ]


def read_with_dicomweb_client(content_type: str, body: bytes) -> list[bytes]:
    response = requests.Response()
    response.status_code = 200
    response.headers["Content-Type"] = content_type
    response._content = body
    return list(DICOMwebClient("http://localhost")._decode_multipart_message(response, stream=False))


def test_a_body_byte_for_byte():
    multipart = Multipart("image/dicom-rle", RLE, boundary="B")

    body = multipart.join_small([(HEAD, b"abc"), (PartHead("application/dicom"), b"")])

    assert body == (
        b"--B\r\n"
        b"Content-Type: image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5\r\n"
        b"Content-Location: http://h/dicomweb/studies/1/series/2/instances/3/frames/1\r\n"
        b"Content-Length: 3\r\n"
        b"\r\n"
        b"abc\r\n"
        b"--B\r\n"
        b"Content-Type: application/dicom\r\n"
        b"\r\n"
        b"\r\n"
        b"--B--\r\n"
    )


def test_the_outer_type_is_quoted_and_names_boundary_and_syntax():
    multipart = Multipart("application/octet-stream", RLE, boundary="B")

    assert multipart.content_type == (
        'multipart/related; type="application/octet-stream"; boundary=B; transfer-syntax=1.2.840.10008.1.2.5'
    )
    assert (
        Multipart("application/dicom", boundary="B").content_type
        == 'multipart/related; type="application/dicom"; boundary=B'
    )


def test_boundaries_are_random_and_plain():
    """cornerstone splits the header at `=` and `;`; RFC 2046 §5.1.1 allows 70 characters."""
    boundaries = {Multipart("a/b").boundary for _ in range(100)}

    assert len(boundaries) == 100
    assert all(re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z-]{31,69}", boundary) for boundary in boundaries)


def test_the_first_line_is_the_boundary_and_the_type_is_spelled_for_cornerstone():
    multipart = Multipart("image/dicom-rle", RLE)

    lines = multipart.join_small([(HEAD, b"abc")]).split(b"\r\n")

    assert lines[0] == b"--" + multipart.boundary.encode()
    assert lines[1].startswith(b"Content-Type: ")
    assert b"transfer-syntax=1.2.840.10008.1.2.5" in lines[1]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_dicomweb_client_reads_every_payload_back(payloads):
    multipart = Multipart("application/octet-stream", RLE)

    body = multipart.join_small((PartHead("application/octet-stream", None, len(data)), data) for data in payloads)

    assert read_with_dicomweb_client(multipart.content_type, body) == payloads


@given(st.lists(st.text(alphabet="ab-\r\n", max_size=20).map(str.encode), min_size=1, max_size=4))
def test_payloads_that_look_like_delimiters_do_not_end_a_part(payloads):
    multipart = Multipart("application/octet-stream", boundary="ab" * 20)

    body = multipart.join_small((PartHead("application/octet-stream"), data) for data in payloads)

    assert read_with_dicomweb_client(multipart.content_type, body) == payloads


def test_the_standard_library_reads_types_and_payloads():
    multipart = Multipart("image/dicom-rle", RLE)

    body = multipart.join_small([(HEAD, b"abc"), (PartHead("image/jls"), b"defg")])

    assert read_with_email(multipart.content_type, body) == [(HEAD.content_type, b"abc"), ("image/jls", b"defg")]


async def test_a_streamed_body_equals_the_joined_one():
    multipart = Multipart("application/dicom")
    heads = [PartHead("application/dicom", length=6), PartHead("application/dicom", length=0)]

    streamed = b"".join(
        [
            bytes(piece)
            async for piece in multipart.stream(as_parts((heads[0], [b"ab", memoryview(b"cdef")]), (heads[1], [])))
        ]
    )

    assert streamed == multipart.join_small([(heads[0], b"abcdef"), (heads[1], b"")])
    assert multipart.content_length(heads) == len(streamed)


@given(st.lists(st.binary(max_size=30), max_size=5), st.booleans())
def test_content_length_is_the_length_of_the_body(payloads, has_location):
    multipart = Multipart("application/dicom")
    location = "http://h/x" if has_location else None
    parts = [(PartHead("application/dicom", location, len(data)), data) for data in payloads]

    assert multipart.content_length(head for head, _ in parts) == len(multipart.join_small(parts))


def test_content_length_is_unknown_when_one_part_is():
    assert Multipart("a/b").content_length([HEAD, PartHead("a/b")]) is None


def test_the_length_of_a_memoryview_is_counted_in_bytes():
    view = memoryview(bytearray(8)).cast("H")

    body = Multipart("a/b", boundary="B").join_small([(PartHead("a/b", length=8), view)])

    assert body.count(b"\0") == 8


@pytest.mark.parametrize("pieces", [[b"ab"], [], [b"ab", b"cd"], [b"abcd"]])
async def test_a_part_of_the_wrong_length_breaks_the_body_off(pieces):
    """A polite end would make a client show half a picture; bytes beyond the promise are not sent at all."""
    multipart = Multipart("a/b", boundary="B")
    sent = b""

    with pytest.raises(CorruptSeries):
        async for piece in multipart.stream(as_parts((PartHead("a/b", length=3), pieces))):
            sent += piece

    assert b"--B--" not in sent
    assert len(sent.partition(b"\r\n\r\n")[2]) <= 3
    with pytest.raises(CorruptSeries):
        multipart.join_small([(PartHead("a/b", length=3), b"".join(pieces))])


@pytest.mark.parametrize("text", ["a/b\r\nX-Evil: 1", "a/b\n", "a/b\0", "é"])
def test_nothing_can_be_put_into_a_header(text):
    with pytest.raises(ValueError):
        Multipart("a/b").join_small([(PartHead(text), b"")])
    with pytest.raises(ValueError):
        Multipart("a/b").join_small([(PartHead("a/b", location=text), b"")])
    with pytest.raises(ValueError):
        _ = Multipart(text).content_type
