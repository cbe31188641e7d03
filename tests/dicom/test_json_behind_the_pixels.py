"""Bytes behind native pixel data that are no data elements: other software pads files there."""

import json
from pathlib import Path

import pytest

from storage.dicom.json import JsonOptions, attributes_json
from storage.dicom.p10 import open_p10
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

P10 = Path(__file__).parent.parent / "data" / "p10" / "syn_ct_1.dcm"
OPTIONS = JsonOptions(bulkdata_base="http://x")


@pytest.mark.parametrize("junk", [b"\0", bytes(64), b"\xde\xad\xbe\xef" * 40, b"\xfe\xff\x00\xe0" + b"\xff" * 60])
def test_junk_behind_the_pixels_changes_nothing(junk: bytes) -> None:
    data = P10.read_bytes()

    padded = attributes_json(open_p10(Window.of(data + junk)), OPTIONS)

    expected = json.loads(attributes_json(open_p10(Window.of(data)), OPTIONS))
    found = json.loads(padded)
    assert {tag: found[tag] for tag in expected} == expected
    assert all(tag == "00000000" or tag > "7FE00010" for tag in found.keys() - expected.keys())


def test_junk_before_the_pixels_is_an_error() -> None:
    data = P10.read_bytes()
    place = data.index(b"\xe0\x7f\x10\x00OW")

    with pytest.raises(InstanceUnreadable):
        attributes_json(open_p10(Window.of(data[:place] + b"\xde\xad\xbe\xef" * 10 + data[place:])), OPTIONS)
