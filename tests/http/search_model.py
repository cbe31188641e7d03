"""What searches must find, as plainly as it can be said: list comprehensions over the metadata of every instance."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from storage.keys import SeriesKey
from tests.http import Attributes, value_of

Holds = Callable[[Attributes], bool]

STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
UID_OF = {"studies": STUDY_UID, "series": SERIES_UID, "instances": INSTANCE_UID}
PATIENT_TAGS = {"00100010", "00100020", "00100030", "00100040"}
STUDY_TAGS = {"00080020", "00080030", "00080050", "00080090", "00081030", "00200010"}
SERIES_TAGS = {"00080060", "0008103E", "00200011", "00080021", "00080031"}
BIG_STUDY = "1.2.826.0.1.3680043.8.498.12356127604533793127098560674655651257"
"""Ten series that disagree about nearly everything."""


@dataclass(frozen=True)
class Model:
    """What a search may find, level by level."""

    studies: list[Attributes]
    series: list[Attributes]
    instances: list[Attributes]

    def level(self, name: str) -> list[Attributes]:
        found: list[Attributes] = getattr(self, name)
        return found

    def find(self, level: str, holds: Holds, within: SeriesKey | None, depth: int) -> list[str]:
        """UIDs of the members of a level for which something holds; `depth` 1: of the study of `within`, 2: of its series."""
        return sorted(
            value_of(each, UID_OF[level])
            for each in self.level(level)
            if holds(each)
            and (within is None or depth < 1 or value_of(each, STUDY_UID) == within.study_uid)
            and (within is None or depth < 2 or value_of(each, SERIES_UID) == within.series_uid)
        )


def commonest(elements: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Of elements that disagree, the commonest with a value; of equally common ones the smallest text."""
    given = list(elements)
    texts = [
        json.dumps(each, ensure_ascii=False, separators=(",", ":")).encode() for each in given if each.get("Value")
    ]
    if not texts:
        return given[0] if given else None
    counts = Counter(texts)
    found: dict[str, Any] = json.loads(min(counts, key=lambda text: (-counts[text], text)))
    return found


def merged(members: list[Attributes], tags: Iterable[str]) -> Attributes:
    elected = {tag: commonest(each[tag] for each in members if tag in each) for tag in tags}
    return {tag: element for tag, element in elected.items() if element is not None}


def model_of(instances: list[Attributes]) -> Model:
    """Series and studies as their instances make them; patients come from series of the commonest PatientID."""
    series, studies, full = [], [], []
    for study_uid in {value_of(each, STUDY_UID) for each in instances}:
        of_study = []
        for series_uid in {value_of(each, SERIES_UID) for each in instances if value_of(each, STUDY_UID) == study_uid}:
            members = [each for each in instances if value_of(each, SERIES_UID) == series_uid]
            one = merged(members, PATIENT_TAGS | STUDY_TAGS | SERIES_TAGS | {STUDY_UID, SERIES_UID})
            one["00201209"] = {"vr": "IS", "Value": [len(members)]}
            one["classes"] = {"Value": sorted({value_of(each, "00080016") for each in members} - {None})}
            of_study.append((one, members))
        everyone = [one for one, _ in of_study]
        patient_id = merged(everyone, ["00100020"]).get("00100020")
        patients = [one for one in everyone if value_of(one, "00100020") is None or one.get("00100020") == patient_id]
        study = merged(everyone, STUDY_TAGS | {STUDY_UID}) | merged(patients, PATIENT_TAGS)
        study["00080061"] = {"vr": "CS", "Value": sorted({value_of(one, "00080060") for one in everyone} - {None})}
        study["00201206"] = {"vr": "IS", "Value": [len(everyone)]}
        study["00201208"] = {"vr": "IS", "Value": [sum(len(members) for _, members in of_study)]}
        study["series"] = {"Value": everyone}
        studies.append(study)
        for one, members in of_study:
            series.append(one | {tag: study[tag] for tag in study if tag != "series"})
            full += [
                {
                    **each,
                    **series[-1],
                    "row": {**each, **one, **{tag: each[tag] for tag in ("00080060",) if tag in each}},
                }
                for each in members
            ]
    return Model(studies, series, full)


def text_of(attributes: Attributes, tag: str) -> str:
    return str(value_of(attributes, tag) or "").strip()


def folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def names_of(attributes: Attributes, tag: str = "00100010") -> list[str]:
    """The component groups of a name, folded; empty components at the end do not count."""
    return [folded(group).rstrip("^ ") for group in (value_of(attributes, tag) or {}).values()]


def equals(tag: str, *values: str) -> Holds:
    return lambda each: text_of(each, tag) in values


def like(tag: str, pattern: str) -> Holds:
    """A wildcard match by a regular expression, case and accents aside."""
    return lambda each: re.fullmatch(pattern, folded(text_of(each, tag)), re.DOTALL) is not None


def named(pattern: str, tag: str = "00100010") -> Holds:
    return lambda each: any(re.fullmatch(pattern, group) for group in names_of(each, tag))


def between(tag: str, low: str, high: str) -> Holds:
    """Dates, and times to the second, as text that sorts; the legacy separators of old files do not count."""

    def holds(each: Attributes) -> bool:
        text = text_of(each, tag)
        if tag == "00080030":
            text = text.partition(".")[0]
        return low <= re.sub("[-.:]", "", text) <= high

    return holds


def has_series(holds: Holds) -> Holds:
    """At study level: a study with such a series."""
    return lambda each: any(holds(one) for one in each["series"]["Value"]) if "series" in each else holds(each)


def of_modality(*modalities: str) -> Holds:
    return lambda each: not set(modalities).isdisjoint(each["00080061"]["Value"])


STUDY_QUERIES: dict[str, Holds] = {
    "": lambda each: True,
    "PatientID=COD-FIX-1": equals("00100020", "COD-FIX-1"),
    "PatientID=cod-fix-1": equals("00100020", "cod-fix-1"),
    "00100020=*CQ500*": like("00100020", ".*cq500.*"),
    "PatientID=%2Acq500%2A": like("00100020", ".*cq500.*"),
    "PatientID=ID?": like("00100020", "id."),
    "PatientName=fixture^synthetic": named(r"fixture\^synthetic"),
    "PatientName=Fixture^Synthetic^^^": named(r"fixture\^synthetic"),
    "PatientName=*les*": named(".*les.*"),
    "PatientName=COMPRESSED*": named("compressed.*"),
    "PatientName=*": lambda each: True,
    "PatientName=": lambda each: True,
    "patientname=*Hong*": named(".*hong.*"),
    "ReferringPhysicianName=mori*": named("mori.*", "00080090"),
    "StudyDate=20240229": between("00080020", "20240229", "20240229"),
    "StudyDate=2024.02.29": between("00080020", "20240229", "20240229"),
    "StudyDate=20040101-20041231": between("00080020", "20040101", "20041231"),
    "StudyDate=-20031231": between("00080020", "1", "20031231"),
    "00080020=20170101-": between("00080020", "20170101", "9"),
    "StudyDate=20250101-20200101": lambda each: False,
    "StudyTime=1200-1259": between("00080030", "120000", "125959"),
    "StudyTime=235959.5": equals("00080030", "235959.5"),
    "AccessionNumber=ACC1": equals("00080050", "ACC1"),
    "AccessionNumber=*": lambda each: True,
    "AccessionNumber=0308*": like("00080050", "0308.*"),
    "StudyDescription=*ÜNICODE*": like("00081030", ".*unicode.*"),
    "StudyDescription=*OFFIS*Document": like("00081030", ".*offis.*document"),
    "StudyID=1": equals("00200010", "1"),
    "PatientName=*syn*&00100020=COD*&StudyDescription=synthetic study": lambda each: (
        named(".*syn.*")(each) and like("00100020", "cod.*")(each) and equals("00081030", "synthetic study")(each)
    ),
    "limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060&PatientName=*fix*": named(".*fix.*"),
    f"StudyInstanceUID={BIG_STUDY}": equals(STUDY_UID, BIG_STUDY),
    f"StudyInstanceUID={BIG_STUDY},1.2.3,,": equals(STUDY_UID, BIG_STUDY),
    f"0020000D={BIG_STUDY}%5C9.9": equals(STUDY_UID, BIG_STUDY),
    f"StudyInstanceUID=9.9&StudyInstanceUID={BIG_STUDY}": equals(STUDY_UID, BIG_STUDY),
    "StudyInstanceUID=9.9.9": lambda each: False,
    "&includedefaults=false": lambda each: True,
}
SERIES_QUERIES: dict[str, Holds] = {
    "Modality=CT": equals("00080060", "CT"),
    "Modality=C?": like("00080060", "c."),
    "Modality=SEG,SR": equals("00080060", "SEG", "SR"),
    "Modality=ct": equals("00080060", "ct"),
    "00080060=MR%5CNM": equals("00080060", "MR", "NM"),
    "SeriesNumber=1": equals("00200011", "1"),
    "SeriesNumber=01": equals("00200011", "1"),
    "SeriesNumber=301.0": equals("00200011", "301"),
    "SeriesNumber=-1": equals("00200011", "-1"),
    "SeriesDescription=j*k": like("0008103E", "j.*k"),
    "SeriesDescription=*SIMPLE*": like("0008103E", ".*simple.*"),
    "Modality=CT&SeriesDescription=ct": lambda each: equals("00080060", "CT")(each) and equals("0008103E", "ct")(each),
    "Modality=CT&SeriesDescription=j2k": lambda each: (
        equals("00080060", "CT")(each) and equals("0008103E", "j2k")(each)
    ),
}
MODALITIES_IN_STUDY: dict[str, Holds] = {
    "ModalitiesInStudy=CT": of_modality("CT"),
    "ModalitiesInStudy=CT%2CMR": of_modality("CT", "MR"),
    "ModalitiesInStudy=CT%5CSR": of_modality("CT", "SR"),
    "ModalitiesInStudy=XX": of_modality("XX"),
    "ModalitiesInStudy=S?": of_modality("SR", "SM", "SC"),
}
INSTANCE_QUERIES: dict[str, Holds] = {
    "SOPClassUID=1.2.840.10008.5.1.4.1.1.2": equals("00080016", "1.2.840.10008.5.1.4.1.1.2"),
    "SOPClassUID=1.2.840.10008.5.1.4.1.1.2,1.2.840.10008.5.1.4.1.1.66.4": equals(
        "00080016", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
    ),
    "InstanceNumber=2": equals("00200013", "2"),
    "InstanceNumber=0002": equals("00200013", "2"),
    "InstanceNumber=": lambda each: True,
    "NumberOfFrames=4": equals("00280008", "4"),
    "SOPInstanceUID=1.2.826.0.1.3680043.8.498.01.02.03": equals(INSTANCE_UID, "1.2.826.0.1.3680043.8.498.01.02.03"),
    "Rows=5&Modality=OT": lambda each: equals("00280010", "5")(each) and equals("00080060", "OT")(each),
}
