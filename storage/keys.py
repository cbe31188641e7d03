"""Names of the objects of a COD datastore, and which UIDs may become part of one.

    studies/<study_uid>/series/<series_uid>.tar
    studies/<study_uid>/series/<series_uid>/{metadata.json, index.sqlite, .gradient.lock, error.log, thumbnail.mp4, thumbnail.jpg}

Beside them, ours and derived, where no listing of `studies/` meets it:

    .codweb/indexes/v<format>/<study_uid>/<series_uid>.index

The bucket and prefix inside a stored `uri` are never used: stores are copied, and a `uri` is only a claim.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

PATH_UID = re.compile(r"[0-9A-Za-z.-]{1,128}", re.ASCII)
"""What a UID may be in a path. Wider than PS3.5 §9.1: stores with 64 hex letters exist. The strict rule is for STOW."""


def is_path_uid(text: str) -> bool:
    """Whether `text` may stand for a UID in a path or key: safe characters, and neither `.` nor `..`."""
    return PATH_UID.fullmatch(text) is not None and text not in (".", "..")


class SeriesObject(StrEnum):
    """The objects that belong to one series, by their name after the series UID."""

    TAR = ".tar"
    METADATA = "/metadata.json"
    INDEX = "/index.sqlite"
    LOCK = "/.gradient.lock"
    ERROR_LOG = "/error.log"
    THUMBNAIL_VIDEO = "/thumbnail.mp4"
    THUMBNAIL_IMAGE = "/thumbnail.jpg"


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """One series of a datastore: the UIDs of its place (hashed ones in a de-identified store)."""

    study_uid: str
    series_uid: str

    def __post_init__(self) -> None:
        if not (is_path_uid(self.study_uid) and is_path_uid(self.series_uid)):
            raise ValueError("not a UID that can be part of a key")

    @property
    def stem(self) -> str:
        """The common beginning of all keys of the series."""
        return f"studies/{self.study_uid}/series/{self.series_uid}"

    def object_key(self, kind: SeriesObject) -> str:
        return self.stem + kind.value

    @property
    def tar(self) -> str:
        return self.stem + ".tar"

    @property
    def metadata(self) -> str:
        return self.stem + "/metadata.json"

    @property
    def lock(self) -> str:
        return self.stem + "/.gradient.lock"

    def __str__(self) -> str:
        return f"series {self.series_uid} of study {self.study_uid}"


_OBJECT_KEY = re.compile(
    r"studies/([0-9A-Za-z.-]{1,128})/series/([0-9A-Za-z.-]{1,128}?)"
    r"(\.tar|/metadata\.json|/index\.sqlite|/\.gradient\.lock|/error\.log|/thumbnail\.mp4|/thumbnail\.jpg)",
    re.ASCII,
)


def parse_object_key(key: str) -> tuple[SeriesKey, SeriesObject] | None:
    """Which series, and which of its objects, a key names; None for a key that is no part of the format."""
    match = _OBJECT_KEY.fullmatch(key)
    if match is None or not (is_path_uid(match[1]) and is_path_uid(match[2])):
        return None
    return SeriesKey(match[1], match[2]), SeriesObject(match[3])


def study_prefix(study_uid: str) -> str:
    """The prefix under which every object of a study lies."""
    return f"studies/{study_uid}/series/"


def shared_index_prefix(format: int, study_uid: str | None = None) -> str:
    """The prefix under which all shared indexes of a format lie, or those of one study."""
    return f".codweb/indexes/v{format}/" + (f"{study_uid}/" if study_uid is not None else "")


def shared_index_key(key: SeriesKey, format: int) -> str:
    """The place of the shared index of a series: one for all versions, so that a new one takes the place of the old."""
    return f"{shared_index_prefix(format, key.study_uid)}{key.series_uid}.index"


_SHARED_INDEX_KEY = re.compile(
    r"\.codweb/indexes/v[0-9]{1,9}/([0-9A-Za-z.-]{1,128})/([0-9A-Za-z.-]{1,128})\.index", re.ASCII
)


def parse_shared_index_key(key: str) -> SeriesKey | None:
    """Which series a shared index is of; None for a key that names none."""
    match = _SHARED_INDEX_KEY.fullmatch(key)
    if match is None or not (is_path_uid(match[1]) and is_path_uid(match[2])):
        return None
    return SeriesKey(match[1], match[2])
