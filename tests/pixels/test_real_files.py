"""The corpus of real files: what is transcoded has the samples that pydicom reads in the original, where it reads them.

One file of each kind and size is enough: a kind is what the manifest says of the pixels.
"""

import json
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any  # the manifest is a tree of anything

import imagecodecs
import numpy as np
import pytest
from pydicom.pixels.utils import pixel_array

from storage.pixels.encode import Target
from storage.pixels.transcode import Kept, Transcoded, transcode
from tests.pixels.images import assert_same_attributes, payloads, read

pytestmark = pytest.mark.long

MAX_FILE_BYTES = 1 << 20
NATIVE_OR_RLE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"} | {
    "1.2.840.10008.1.2.5"
}
"""What pydicom decodes without plugins."""


@pytest.fixture(scope="module")
def chosen(real_folder: Path) -> list[tuple[str, bytes]]:
    """Up to two files of a kind, the smallest ones."""
    entries: list[dict[str, Any]] = json.loads((real_folder / "manifest.json").read_bytes())["files"]
    kinds: Counter[str] = Counter()
    files = []
    for entry in sorted(entries, key=lambda entry: (entry["size"], entry["file"])):
        kind = [entry[name] for name in ("transfer_syntax", "bits", "samples", "photometric", "parse_error")]
        if entry["size"] <= MAX_FILE_BYTES and kinds[str(kind)] < 2:
            kinds[str(kind)] += 1
            files.append((entry["file"], (real_folder / entry["file"]).read_bytes()))
    return files


@pytest.mark.parametrize("target", [Target.HTJ2K, Target.JLS])
def test_real_files_lose_nothing(target: Target, chosen: list[tuple[str, bytes]]) -> None:
    outcomes: Counter[str] = Counter()
    for name, data in chosen:
        result = transcode(data, target)
        outcomes[type(result).__name__] += 1
        if isinstance(result, Kept):
            assert result.reason
            continue
        assert len(result.data) < len(data), name
        assert_same_attributes(data, result.data)
        outcomes["compared"] += assert_same_samples(name, data, result)
    assert outcomes["Transcoded"] > 20
    assert outcomes["compared"] > 10


def assert_same_samples(name: str, data: bytes, result: Transcoded) -> bool:
    """Against pydicom; False where it cannot decode the original without plugins."""
    original = read(data)
    if original.file_meta.TransferSyntaxUID not in NATIVE_OR_RLE:
        return False
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is here because it is not clean
        expected = pixel_array(original, raw=True).astype(np.int64)
    decode = imagecodecs.jpegls_decode if result.transfer_syntax_uid.endswith(".80") else imagecodecs.jpeg2k_decode
    mask = (1 << original.BitsStored) - 1
    frames = np.stack([decode(payload) for payload in payloads(result.data)]).astype(np.int64)
    assert np.array_equal(frames.reshape(expected.shape) & mask, expected & mask), name
    return True
