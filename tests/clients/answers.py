"""What viewers read in answers, compared with what pydicom reads in the files."""

import hashlib
from typing import Any

import httpx
from pydicom import Dataset

from tests.clients.conftest import Server
from tests.support.multipart import Part, parts_of

JSON = {"Accept": "application/dicom+json"}

STUDY_LIST = "0020000D 00080020 00080030 00080050 00100020 00100010 00100030 00201208 00081030 00080061 00080090"
"""Tags that the study lists of OHIF and Slim read."""
SERIES_PANEL = "0020000D 0020000E 00080060 00200011 00080021 00201209 0008103E"
"""Tags that OHIF's side panel and MONAI Label read."""
INSTANCE_LIST = "00080016 00080018 0020000D 0020000E 00200013 00080060 00280010 00280011 00280100 00280008 00083002"
"""Tags that wsidicom, Slim and Weasis read."""
COUNTED = {"00201206", "00201208", "00201209", "00080061", "00083002"}
"""Tags whose values are not those of a file, but of the archive."""


Attributes = dict[str, Any]


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def rows(server: Server, target: str, headers: dict[str, str] | None = None) -> list[Attributes]:
    """The results of a search or a metadata request, which has to succeed."""
    answer = server.fetch(target, JSON if headers is None else headers)
    assert answer.status_code == 200, (target, answer.text[:300])
    assert answer.headers["content-type"] in ("application/dicom+json", "application/json")
    found: list[Attributes] = answer.json()
    return found


def values(found: list[Attributes], tag: str) -> list[Any]:
    """The first value of an attribute in each row."""
    return [row[tag]["Value"][0] for row in found]


def check_tags(row: Attributes, tags: str, data: Dataset) -> None:
    """Each tag reads as in the file, and is left out or empty where the file has no value."""
    told = Dataset.from_json(row)
    for tag in tags.split():
        if tag in COUNTED:
            assert row[tag]["Value"], tag
        else:
            value, expected = (data_set[tag].value if tag in data_set else None for data_set in (told, data))
            assert value == expected or (value in (None, "") and expected in (None, "")), tag


def only_part(answer: httpx.Response) -> Part:
    assert answer.status_code == 200, answer.text[:300]
    [part] = parts_of(answer)
    return part
