"""Files to be found: what their bytes are is known to the test that wrote them."""

from collections.abc import Iterator

import pytest

from storage.ingest.sources.background import background


@pytest.fixture
def files() -> list[tuple[str, bytes]]:
    """Names as media and modalities give them, and DICOM files, one of them empty of everything but its prefix."""
    return [
        ("IM1", p10(b"one")),
        ("DICOM/PA0/ST0/SE0/IM0", p10(b"two" * 40_000)),
        (".hidden", p10(b"")),
        ("with space é.dcm", p10(bytes(1000))),
    ]


@pytest.fixture
def buckets_are_closed() -> Iterator[None]:
    """What reads buckets in the background ends with the test."""
    yield
    background().close()


def p10(rest: bytes) -> bytes:
    return bytes(128) + b"DICM" + rest
