"""Which representation of a resource is sent: what the client accepts against what can be sent without decoding.

Each resource draws up the forms it can take, best first; each form takes the weight of the most specific range that
covers it (RFC 9110 §12.5.1); the heaviest wins, then the one named more exactly, then the client's order, then ours.
Nothing is read from the datastore here beyond the transfer syntax, so a 406 costs no pixel.
Sources: PS3.18 §8.7.3 (DICOM media types and their transfer syntaxes), §8.7.5, §8.7.8.1 (selection).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from app.accept import Accept, MediaRange
from app.errors import NotAcceptable
from storage.errors import CorruptSeries
from storage.keys import is_path_uid

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
JSON = "application/json"
OCTET_STREAM = "application/octet-stream"

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
AS_STORED = "*"

_COMPRESSED = "1.2.840.10008.1.2.4."
_MEDIA_TYPES = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (80, 81)), "image/jls"),
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (92, 93)), "image/jpx"),
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (110, 111, 112)), "image/jxl"),
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (201, 202, 203)), "image/jphc"),
    **dict.fromkeys((f"{_COMPRESSED}{n}{f}" for n in (100, 101) for f in ("", ".1")), "video/mpeg"),
    **dict.fromkeys((f"{_COMPRESSED}{n}{f}" for n in range(102, 107) for f in ("", ".1")), "video/mp4"),
    **dict.fromkeys((f"{_COMPRESSED}{n}" for n in (107, 108)), "video/H265"),
}
"""Tables 8.7.3-3 to 8.7.3-5 (single frame, multi-frame and video media types). Any other syntax is octet-stream."""

_ALIASES = {"image/x-dicom-rle": "image/dicom-rle", "image/x-jls": "image/jls", "video/mpeg2": "video/mpeg"}
"""Names from before 2015 that clients still send."""

_SAFE_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}", re.ASCII)

Form = TypeVar("Form")


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """How the pixels of an instance are kept. Native means not encapsulated; deflated data sets count as native."""

    transfer_syntax_uid: str
    is_native: bool
    is_big_endian: bool = False

    @property
    def sent_syntax_uid(self) -> str:
        """The syntax that names the bytes we send: native samples leave as Explicit VR Little Endian (§8.7.3)."""
        return EXPLICIT_VR_LITTLE_ENDIAN if self.is_native else self.transfer_syntax_uid

    def answers_to(self, transfer_syntax_uid: str) -> bool:
        """Whether the bytes we send are of this syntax; implicit and explicit little endian frames are the same."""
        if transfer_syntax_uid == self.sent_syntax_uid:
            return True
        return transfer_syntax_uid == self.transfer_syntax_uid and not self.is_big_endian


@dataclass(frozen=True, slots=True)
class FrameForm:
    """How frames are sent: in a multipart or alone, and what each part is called."""

    multipart: bool
    media_type: str
    transfer_syntax_uid: str

    @property
    def part_content_type(self) -> str:
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"


@dataclass(frozen=True, slots=True)
class InstanceForm:
    """How whole instances are sent, and which transfer syntaxes the client takes."""

    multipart: bool
    accepted: frozenset[str] | None
    """Transfer syntax UIDs; None: each instance as it is stored."""
    refused: frozenset[str] = frozenset()

    def accepts_syntax(self, transfer_syntax_uid: str) -> bool:
        """Whether an instance of this syntax may be sent as it is."""
        if transfer_syntax_uid in self.refused:
            return False
        return self.accepted is None or transfer_syntax_uid in self.accepted


@dataclass(frozen=True, slots=True)
class BulkdataForm:
    """How a bulk data value is sent."""

    multipart: bool
    media_type: str


def media_type_of(transfer_syntax_uid: str) -> str:
    """The media type of encapsulated pixels; `application/octet-stream` for syntaxes that have no own one."""
    return _MEDIA_TYPES.get(transfer_syntax_uid, OCTET_STREAM)


def choose_metadata(accept: Accept) -> str:
    """The media type of a metadata answer: DICOM JSON, under the name by which the client asked.

    Raises:
        NotAcceptable: only other types are accepted, such as `application/dicom+xml`.

    Source: PS3.18 §10.4.4 (default `application/dicom+json`).
    """
    return _choose_json(accept, "Metadata is available as DICOM JSON only.")


def choose_search(accept: Accept) -> str:
    """The media type of a search answer; see `choose_metadata`. Source: PS3.18 §10.6.4."""
    return _choose_json(accept, "Search results are available as DICOM JSON only.")


def choose_frames(accept: Accept, stored: StoredPixels, frames_asked: int) -> FrameForm:
    """How to send frames without decoding them.

    Stored bytes go to whoever accepts anything, names the stored syntax or its media type, or says `transfer-syntax=*`.
    `application/octet-stream` without a syntax means decoded pixels (§8.7.3): native ones are, compressed ones are not.
    One frame may go alone where the client names a bare media type; several need a multipart.

    Raises:
        NotAcceptable: decoding or transcoding would be needed; the message says how to ask instead.
        CorruptSeries: the stored transfer syntax is no UID, so no header may name it.

    Source: PS3.18 §10.4.1.1.6, §8.7.3.
    """
    form = _choose_frames(accept, stored, frames_asked == 1)
    if form is not None:
        return form
    syntax = stored.sent_syntax_uid
    detail = f"The pixels are stored as {stored.transfer_syntax_uid} and sent as {syntax}; they are not transcoded. "
    detail += "Ask with transfer-syntax=* for the stored form."
    if frames_asked > 1:
        detail += " Several frames are sent as multipart/related only."
    forms = _frame_forms(stored, frames_asked == 1)
    raise NotAcceptable(detail, [_spell(form.multipart, form.media_type, syntax) for form in forms])


def choose_instances(
    accept: Accept, *, single: bool, strict: bool = False, stored_syntax_uid: str | None = None
) -> InstanceForm:
    """How to send whole instances; a single instance may go alone, and goes as a multipart when both are as welcome.

    Which syntaxes fit is decided for each instance by the caller, with `InstanceForm.accepts_syntax`. Where none is
    named the stored bytes are sent; `strict` follows the letter, which says Explicit VR Little Endian.

    Args:
        stored_syntax_uid: the syntax of the one instance, where the caller knows it: forms that refuse it are out.

    Raises:
        NotAcceptable: no range covers `application/dicom`, or none that takes the stored syntax.
        CorruptSeries: the stored transfer syntax is no UID, so no header may name it.

    Source: PS3.18 §10.4.1.1.1, §8.7.3.
    """
    if stored_syntax_uid is not None:
        _check_syntax(stored_syntax_uid)
    shapes = (True, False) if single else (True,)
    for ranges in accept.tiers:
        ranked = []
        for multipart in shapes:
            rank = _rank(ranges, multipart, _covers_instance)
            if rank is None:
                continue
            form = _instance_form(ranges, multipart, strict)
            if stored_syntax_uid is None or form.accepts_syntax(stored_syntax_uid):
                ranked.append(((*rank[:2], form.accepted is None, multipart), form))
        if ranked:
            return max(ranked, key=lambda entry: entry[0])[1]
    detail = "Instances are available as application/dicom, in the transfer syntax in which they are stored"
    detail += "." if stored_syntax_uid is None else f": {stored_syntax_uid}."
    raise NotAcceptable(detail, [_spell(multipart, DICOM, AS_STORED) for multipart in shapes])


def choose_bulkdata(accept: Accept, media_type_of_value: str = OCTET_STREAM) -> BulkdataForm:
    """How to send one bulk data value: alone under its own media type unless a multipart is asked for.

    Args:
        media_type_of_value: what the data set says (MIMEType of Encapsulated Document, 0042,0012). It is a stranger's
            text: anything that is no plain media type counts as `application/octet-stream`.

    Raises:
        NotAcceptable: neither the value's type nor octet-stream is accepted.

    Source: PS3.18 §10.4.1.1.5, §8.7.3 (bulk data media types).
    """
    own = media_type_of_value.strip().lower()
    own = own if _SAFE_MEDIA_TYPE.fullmatch(own) else OCTET_STREAM
    media_types = list(dict.fromkeys((own, OCTET_STREAM)))
    forms = [BulkdataForm(multipart, media_type) for multipart in (False, True) for media_type in media_types]

    form = _best(accept, forms, lambda asked, form: _covers_type(asked, form.multipart, form.media_type))
    if form is not None:
        return form
    available = [_spell(form.multipart, form.media_type) for form in forms]
    raise NotAcceptable(f"The value is available as {own} or application/octet-stream.", available)


def _choose_json(accept: Accept, detail: str) -> str:
    names = (DICOM_JSON, JSON)
    name = _best(accept, names, lambda asked, name: _covers_type(asked, False, name))
    if name is None:
        raise NotAcceptable(detail, names)
    return name


@lru_cache(maxsize=256)
def _choose_frames(accept: Accept, stored: StoredPixels, single: bool) -> FrameForm | None:
    """The hottest choice, and always the same few: a viewer sends one Accept for all frames of a study."""
    _check_syntax(stored.transfer_syntax_uid)
    is_decoded = stored.sent_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN

    def covers(asked: MediaRange, form: FrameForm) -> int | None:
        specificity = _covers_type(asked, form.multipart, form.media_type)
        if specificity is None:
            return None
        wanted = asked.transfer_syntax
        if wanted is None:
            names_octet_stream = OCTET_STREAM in (asked.type, asked.part_type)
            return specificity if is_decoded or not names_octet_stream else None
        if wanted == AS_STORED:
            return specificity
        return specificity + 1 if stored.answers_to(wanted) else None

    return _best(accept, _frame_forms(stored, single), covers)


def _check_syntax(transfer_syntax_uid: str) -> None:
    """Refuse a stored text that would be written into a header and is no UID."""
    if not is_path_uid(transfer_syntax_uid):
        raise CorruptSeries("the transfer syntax of the instance is no UID")


def _frame_forms(stored: StoredPixels, single: bool) -> list[FrameForm]:
    syntax = stored.sent_syntax_uid
    media_types = dict.fromkeys((media_type_of(syntax), OCTET_STREAM))
    shapes = (True, False) if single else (True,)
    return [FrameForm(multipart, media_type, syntax) for multipart in shapes for media_type in media_types]


def _covers_instance(asked: MediaRange, multipart: bool) -> int | None:
    return _covers_type(asked, multipart, DICOM)


def _instance_form(ranges: Sequence[MediaRange], multipart: bool, strict: bool) -> InstanceForm:
    """Gather the transfer syntaxes of all ranges that cover the shape."""
    default = EXPLICIT_VR_LITTLE_ENDIAN if strict else AS_STORED
    taken: set[str] = set()
    refused: set[str] = set()
    for asked in ranges:
        if _covers_instance(asked, multipart) is not None:
            (taken if asked.q > 0 else refused).add(asked.transfer_syntax or default)
    return InstanceForm(multipart, None if AS_STORED in taken else frozenset(taken), frozenset(refused - taken))


def _best(accept: Accept, forms: Sequence[Form], covers: Callable[[MediaRange, Form], int | None]) -> Form | None:
    """The form that the client likes best, or None. `covers` gives the specificity of a range that covers a form."""
    for ranges in accept.tiers:
        best: tuple[tuple[float, int, int], Form] | None = None
        for form in forms:
            rank = _rank(ranges, form, covers)
            if rank is not None and (best is None or rank > best[0]):
                best = (rank, form)
        if best is not None:
            return best[1]
    return None


def _rank(
    ranges: Sequence[MediaRange], form: Form, covers: Callable[[MediaRange, Form], int | None]
) -> tuple[float, int, int] | None:
    """Weight, specificity and place of the most specific range that covers the form; None if none does or `q=0`."""
    nearest: tuple[int, float, int] | None = None
    for place, asked in enumerate(ranges):
        specificity = covers(asked, form)
        if specificity is not None and (nearest is None or (specificity, asked.q) > nearest[:2]):
            nearest = (specificity, asked.q, -place)
    if nearest is None or nearest[1] == 0:
        return None
    return nearest[1], nearest[0], nearest[2]


def _covers_type(asked: MediaRange, multipart: bool, media_type: str) -> int | None:
    """How exactly a range names a form, from 0 (`*/*`) to 4 (the media type itself); None: not at all."""
    if asked.type == "*/*":
        return 0
    if not multipart:
        return _covers_name(asked.type, media_type, whole_range=1)
    if asked.type == "multipart/*":
        return 1
    if asked.type != "multipart/related":
        return None
    return 2 if asked.part_type == "*/*" else _covers_name(asked.part_type, media_type, whole_range=3)


def _covers_name(asked_type: str, media_type: str, *, whole_range: int) -> int | None:
    if asked_type.endswith("/*"):
        return whole_range if media_type.startswith(asked_type[:-1]) else None
    return 4 if _ALIASES.get(asked_type, asked_type) == media_type.lower() else None


def _spell(multipart: bool, media_type: str, transfer_syntax: str | None = None) -> str:
    """A media type as a client would write it into Accept."""
    name = f'multipart/related; type="{media_type}"' if multipart else media_type
    return name if transfer_syntax is None else f"{name}; transfer-syntax={transfer_syntax}"
