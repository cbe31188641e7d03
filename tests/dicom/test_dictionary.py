"""The dictionary that is read without the rest of pydicom, against pydicom."""

import pydicom.charset
import pydicom.datadict
import pytest
from pydicom._dicom_dict import DicomDictionary

from storage.dicom.dictionary import STANDARD_ENTRIES, tag_of_keyword
from storage.dicom.text import COMMON_ENCODINGS
from storage.dicom.vr import private_vr, standard_vr


def test_entries_are_those_of_pydicom() -> None:
    assert len(STANDARD_ENTRIES) > 4000
    assert DicomDictionary == STANDARD_ENTRIES


@pytest.mark.parametrize("keyword", ["Rows", "PixelSpacing", "SOPClassUID", "rows", "OverlayRows"])
def test_tag_of_keyword_is_that_of_pydicom(keyword: str) -> None:
    assert tag_of_keyword(keyword) == (
        pydicom.datadict.tag_for_keyword(keyword) if keyword in pydicom.datadict.keyword_dict else None
    )


@pytest.mark.parametrize(
    ("tag", "vr"), [(0x60020010, "US"), (0x60020011, "US"), (0x00280010, "US"), (0x00290001, "UN")]
)
def test_repeating_groups_are_still_asked_of_pydicom(tag: int, vr: str) -> None:
    """PS3.5 §7.6"""
    assert standard_vr(tag) == vr


def test_private_tags_are_still_asked_of_pydicom() -> None:
    assert private_vr(0x00091002, "GEMS_IDEN_01") == pydicom.datadict.private_dictionary_VR(0x00091002, "GEMS_IDEN_01")


@pytest.mark.parametrize("term", COMMON_ENCODINGS)
def test_common_character_sets_are_read_as_pydicom_reads_them(term: str) -> None:
    assert COMMON_ENCODINGS[term] == pydicom.charset.python_encoding[term]
