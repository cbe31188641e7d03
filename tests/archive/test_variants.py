"""Metadata in other roots and codings: cut anywhere, the links are still rewritten, and nothing else is."""

import gzip
import io
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from storage.archive.metadata import STREAMED_BYTES
from storage.archive.variants import VariantCache, coded
from storage.series_index.rerooting import rerooted
from storage.series_index.splice import Coding, Piece, array, joined
from tests.support.server import BASE, serving
from tests.support.stores import loaded

OLD, NEW = "http://a:1/dicomweb", "https://proxy.example.org/x/dicomweb"


@given(
    texts=st.lists(
        st.sampled_from([f'"BulkDataURI":"{OLD}/', '"BulkDataURI":"', OLD, "http://", '"', "x"]), max_size=12
    ),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_links_are_rewritten_wherever_chunks_are_cut(texts: list[str], cuts: list[int]) -> None:
    text = "".join(texts).encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    chunks = [text[start:stop] for start, stop in pairwise(edges)]

    answer = b"".join(rerooted(chunks, OLD, NEW))

    assert answer == text.replace(f'"BulkDataURI":"{OLD}/'.encode(), f'"BulkDataURI":"{NEW}/'.encode())


@given(blocks=st.lists(st.binary(min_size=1, max_size=3000), max_size=5), coding=st.sampled_from(["zstd", "gzip"]))
def test_spliced_pieces_decode_as_one_body(blocks: list[bytes], coding: Coding) -> None:
    pieces = joined((coded([block[:7], block[7:]], coding) for block in blocks), coding)

    body = b"".join(array([pieces], coding))

    if coding == "gzip":
        decoded = gzip.decompress(body)
        members = body.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
        assert members == 1  # clients stop after the first member
    else:
        decoded = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True).read()
    assert decoded == b"[" + b",".join(blocks) + b"]"


def test_a_variant_that_would_push_out_the_others_is_not_kept() -> None:
    cache = VariantCache(1000)
    cache.put("small", [Piece(bytes(200), 200, 0)])

    cache.put("huge", [Piece(bytes(900), 900, 0)])

    assert cache.get("huge") is None
    assert cache.get("small") is not None


def test_the_least_recently_used_variant_goes_first() -> None:
    cache = VariantCache(1000)
    for name in ("a", "b", "c", "d"):
        cache.put(name, [Piece(bytes(250), 250, 0)])
    cache.get("a")

    cache.put("e", [Piece(bytes(250), 250, 0)])

    assert cache.get("b") is None
    assert cache.get("a") is not None


async def test_a_streamed_answer_equals_the_one_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above `STREAMED_BYTES` uncompressed metadata are decompressed while they are sent."""
    assert STREAMED_BYTES > 1 << 20
    plain = {"accept-encoding": "identity"}
    async with serving(await loaded("v2_raw"), tmp_path) as client:
        rows = (await client.get("/dicomweb/series")).json()
        paths = [row["00081190"]["Value"][0].removeprefix(BASE) + "/metadata" for row in rows]
        whole = [(await client.get(path, headers=plain)).json() for path in paths]
        monkeypatch.setattr("storage.archive.metadata.STREAMED_BYTES", 0)

        streamed = [await client.get(path, headers=plain) for path in paths]

        assert [response.json() for response in streamed] == whole
        assert all(("content-length" in response.headers) == (response.json() == []) for response in streamed)
