"""The JSON that a search answers: one finished object for a study or series (PS3.18 §10.6.3.3, Annex F).

A *document* is everything the catalogue holds of a study or series, by tag. A study's document is made from those of
its series; a row is a document cut to what was asked. Nothing here decodes a value that it does not need.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from storage import levels
from storage.attributes import finished, json_object
from storage.catalogue.base import SeriesSummary
from storage.catalogue.matching import number_of, sortable, text_of, values_of
from storage.catalogue.query import Level, Query, Tag
from storage.errors import CorruptSeries
from storage.keys import is_path_uid
from storage.links import ROOT

Document = dict[Tag, bytes]

LONGEST_ATTRIBUTE_BYTES = 64 * 1024
"""A longer attribute is left out of the catalogue: no key or description is, and a row is read at every search."""

_STUDY_DATE, _STUDY_TIME, _BIRTH_DATE = 0x00080020, 0x00080030, 0x00100030
_MODALITY, _SOP_CLASS_UID = 0x00080060, 0x00080016
_PATIENT_ID, _STUDY_UID, _SERIES_UID = 0x00100020, 0x0020000D, 0x0020000E
_LONGEST_MODALITY = 64

_KEPT_OF_STUDY = levels.PATIENT_TAGS | levels.STUDY_TAGS
_KEPT_OF_SERIES = _KEPT_OF_STUDY | levels.SERIES_TAGS

_COMPUTED_OF_STUDY = (
    levels.SPECIFIC_CHARACTER_SET,
    levels.INSTANCE_AVAILABILITY,
    levels.MODALITIES_IN_STUDY,
    levels.RETRIEVE_URL,
    levels.NUMBER_OF_STUDY_RELATED_SERIES,
    levels.NUMBER_OF_STUDY_RELATED_INSTANCES,
)
_COMPUTED_OF_SERIES = (levels.NUMBER_OF_SERIES_RELATED_INSTANCES,)

STUDY_DEFAULT = frozenset((*levels.STUDY_RETURN_REQUIRED, *levels.STUDY_RETURN_KNOWN, *_COMPUTED_OF_STUDY))
"""What a row of a study holds unasked."""
SERIES_DEFAULT = STUDY_DEFAULT | frozenset(
    (*levels.SERIES_RETURN_REQUIRED, *levels.SERIES_RETURN_KNOWN, *_COMPUTED_OF_SERIES)
)
"""What a row of a series holds unasked: the study's attributes too (PS3.18 §10.6.3.3.2)."""

_STUDY_ALL = _KEPT_OF_STUDY | STUDY_DEFAULT | {levels.SOP_CLASSES_IN_STUDY}
_SERIES_ALL = _STUDY_ALL | SERIES_DEFAULT | levels.SERIES_TAGS
_FROM_STUDY = _STUDY_ALL - {levels.SPECIFIC_CHARACTER_SET, levels.INSTANCE_AVAILABILITY, levels.RETRIEVE_URL}
_EVERY_LEVEL = _SERIES_ALL | levels.INSTANCE_TAGS | {levels.AVAILABLE_TRANSFER_SYNTAX_UID}

# The required attributes of study and series, as they are sent when the data has none: key and VR, no value.
_EMPTY: Document = {
    tag: f'{{"vr":"{vr}"}}'.encode()
    for vr, tags in {
        "DA": (_STUDY_DATE, _BIRTH_DATE),
        "TM": (_STUDY_TIME,),
        "SH": (0x00080050, 0x00200010),
        "PN": (0x00080090, 0x00100010),
        "LO": (_PATIENT_ID,),
        "CS": (0x00100040, _MODALITY),
        "IS": (0x00200011,),
    }.items()
    for tag in tags
}


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which attributes the rows of a search hold, and what could not be had."""

    tags: frozenset[Tag]
    is_default: bool
    warnings: tuple[str, ...]


def wanted(query: Query) -> Wanted:
    """What a search for studies or series returns: the defaults, the match keys, and `includefield`.

    Fields of a lower level are passed over in silence, for viewers ask for them out of habit.
    """
    default, everything = (STUDY_DEFAULT, _STUDY_ALL) if query.level is Level.STUDY else (SERIES_DEFAULT, _SERIES_ALL)
    included = {path[0] for path in query.include if path}
    keys = {condition.path[0] for condition in query.conditions}
    keys.update(tag for interval in query.intervals for tag in (interval.date, interval.time))
    tags = default | (everything if query.include_all else (included | keys) & everything)
    unknown = sorted(included - _EVERY_LEVEL)
    warnings = (f"Not included, because the search index does not hold them: {tag_names(unknown)}.",) if unknown else ()
    return Wanted(frozenset(tags), tags == default, warnings)


def tag_names(tags: Iterable[Tag]) -> str:
    """Tags as a warning names them."""
    return ", ".join(f"{tag:08X}" for tag in tags)


def checked(summary: SeriesSummary) -> SeriesSummary:
    """The summary with what rows can hold; one with a problem if an attribute is not DICOM JSON."""
    if summary.problem is not None:
        return replace(summary, attributes={})
    kept: Document = {}
    for tag, element in summary.attributes.items():
        if tag not in _KEPT_OF_SERIES or len(element) > LONGEST_ATTRIBUTE_BYTES:
            continue
        try:
            values_of(element)
            kept[tag] = bytes(element).strip()
        except CorruptSeries:
            return replace(summary, attributes={}, problem=f"attribute {tag:08X} of its summary is not DICOM JSON")
        if not kept[tag].startswith(b"{"):
            return replace(summary, attributes={}, problem=f"attribute {tag:08X} of its summary is no JSON object")
    return replace(summary, attributes=kept)


def series_document(summary: SeriesSummary) -> Document:
    """Everything of a series, from a checked summary: its own values of the study's attributes too.

    SOPClassUID stands for all classes of the series: it is searched, and never returned at this level.
    """
    key = summary.key
    document = {tag: element for tag, element in summary.attributes.items() if tag in _KEPT_OF_SERIES}
    document |= _constants(f"/studies/{key.study_uid}/series/{key.series_uid}")
    document[_STUDY_UID] = finished("UI", [key.study_uid])
    document[_SERIES_UID] = finished("UI", [key.series_uid])
    document[_SOP_CLASS_UID] = finished("UI", sorted({uid for uid in summary.sop_class_uids if is_path_uid(uid)}))
    document[levels.NUMBER_OF_SERIES_RELATED_INSTANCES] = finished("IS", [summary.instance_count])
    return document


def study_document(study_uid: str, series: Sequence[Document]) -> Document:
    """Everything of a study, from its series in any order.

    Where series disagree the commonest value counts, and of equally common ones the smallest text. Patient attributes
    come only from series of the commonest PatientID: the name of one patient never meets the number of another.
    """
    document = _consensus(series, _KEPT_OF_STUDY - levels.PATIENT_TAGS)
    patient_id = _consensus(series, {_PATIENT_ID}).get(_PATIENT_ID)
    of_patient = [one for one in series if not has_value(one.get(_PATIENT_ID)) or one.get(_PATIENT_ID) == patient_id]
    document |= _consensus(of_patient, levels.PATIENT_TAGS)
    for tag, vr in ((_STUDY_DATE, "DA"), (_STUDY_TIME, "TM"), (_BIRTH_DATE, "DA")):  # one value each (PS3.6)
        if len(values_of(document.get(tag))) > 1:
            document[tag] = finished(vr, texts_of(document[tag])[:1])
    document |= _constants(f"/studies/{study_uid}")
    document[_STUDY_UID] = finished("UI", [study_uid])
    classes = {text for one in series for text in texts_of(one.get(_SOP_CLASS_UID))}
    instances = sum(number_in(one, levels.NUMBER_OF_SERIES_RELATED_INSTANCES) or 0 for one in series)
    document[levels.MODALITIES_IN_STUDY] = finished("CS", modalities(series))
    document[levels.SOP_CLASSES_IN_STUDY] = finished("UI", sorted(classes))
    document[levels.NUMBER_OF_STUDY_RELATED_SERIES] = finished("IS", [len(series)])
    document[levels.NUMBER_OF_STUDY_RELATED_INSTANCES] = finished("IS", [int(instances)])
    return document


def study_row(study: Mapping[Tag, bytes], tags: frozenset[Tag] = STUDY_DEFAULT) -> bytes:
    """One study as a search answers it."""
    return json_object(
        {tag: study[tag] if tag in study else _EMPTY[tag] for tag in tags if tag in study or tag in _EMPTY}
    )


def series_row(series: Mapping[Tag, bytes], study: Mapping[Tag, bytes], tags: frozenset[Tag] = SERIES_DEFAULT) -> bytes:
    """One series as a search answers it; the study's attributes are those of its study."""
    of_study = {tag: study[tag] for tag in tags & _FROM_STUDY if tag in study}
    return study_row(of_study | {tag: series[tag] for tag in tags - _FROM_STUDY if tag in series}, tags)


def decode(text: bytes) -> Document:
    """The inverse of `json_object`. Raises CorruptSeries."""
    try:
        members = _MEMBERS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_document(text) from error
    return {int(name, 16): bytes(element) for name, element in members.items()}


class DocumentReader:
    """Cuts a few attributes out of encoded documents, without making anything of the others."""

    __slots__ = ("_decoder", "_names")

    def __init__(self, tags: Iterable[Tag]) -> None:
        self._names = {tag: f"tag_{tag:08X}" for tag in tags}
        fields = [(name, msgspec.Raw, msgspec.Raw()) for name in self._names.values()]
        members = msgspec.defstruct("Members", fields, rename={name: name[4:] for name in self._names.values()})
        self._decoder = msgspec.json.Decoder(members)

    def read(self, text: bytes) -> Document:
        """Those of the attributes that the document has. Raises CorruptSeries."""
        try:
            members = self._decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _no_document(text) from error
        found = ((tag, bytes(getattr(members, name))) for tag, name in self._names.items())
        return {tag: element for tag, element in found if element}


def texts_of(element: bytes | None) -> list[str]:
    """The values of an attribute that are text or numbers, trimmed, empty ones left out."""
    return [text for value in values_of(element) if (text := text_of(value))]


def number_in(document: Mapping[Tag, bytes], tag: Tag) -> float | None:
    """The first value of an attribute that is a number."""
    return next((number for value in values_of(document.get(tag)) if (number := number_of(value)) is not None), None)


def moment_of(study: Mapping[Tag, bytes]) -> tuple[str, str]:
    """StudyDate and StudyTime as they sort; empty where absent or unreadable."""
    date, time = (next(iter(texts_of(study.get(tag))), None) for tag in (_STUDY_DATE, _STUDY_TIME))
    return sortable("DA", date), sortable("TM", time)


def modalities(series: Sequence[Mapping[Tag, bytes]]) -> list[str]:
    """Modality of all series, sorted; what cannot be a Code String is left out."""
    found = {text for one in series for text in texts_of(one.get(_MODALITY))}
    return sorted(text for text in found if len(text) <= _LONGEST_MODALITY and text.isprintable() and "\\" not in text)


def has_value(element: bytes | None) -> bool:
    """Whether an attribute is there and not empty."""
    # A quote inside a JSON string is escaped, so these bytes are a name; those of a nested item have a Value around them.
    return element is not None and b'"Value"' in element


def _consensus(series: Sequence[Document], tags: Iterable[Tag]) -> Document:
    """Of each attribute the commonest element that has a value, else an empty one."""
    document: Document = {}
    for tag in tags:
        elements = [one[tag] for one in series if tag in one]
        counts = Counter(element for element in elements if has_value(element)) or Counter(elements)
        if counts:
            document[tag] = min(counts, key=lambda element: (-counts[element], element))
    return document


def _constants(path: str) -> Document:
    return {
        levels.SPECIFIC_CHARACTER_SET: finished("CS", ["ISO_IR 192"]),
        levels.INSTANCE_AVAILABILITY: finished("CS", ["ONLINE"]),
        levels.RETRIEVE_URL: finished("UR", [ROOT + path]),
    }


def _no_document(text: bytes) -> CorruptSeries:
    return CorruptSeries(f"a catalogue document of {len(text)} bytes is not DICOM JSON")
