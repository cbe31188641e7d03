"""What a check can find."""

from dataclasses import dataclass
from enum import StrEnum

from storage.keys import SeriesKey


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something cannot be served."""
    WARNING = "warning"
    """Everything can be served; another reader, or a writer, will stumble."""
    NOTE = "note"
    """Worth knowing; nothing is wrong."""


class Kind(StrEnum):
    """What was found."""

    UNREADABLE_METADATA = "unreadable metadata"
    TORN = "torn series"
    MISSING_TAR = "metadata without tar"
    MISSING_METADATA = "tar without metadata"
    UNREADABLE_INSTANCE = "unreadable instance"
    WRONG_CHECKSUM = "wrong checksum"
    DOUBTFUL_FRAMES = "doubtful frames"
    WRONG_TABLE = "wrong offset table"
    LOSSY_METADATA = "lossy metadata"
    ORPHAN_MEMBER = "orphan in tar"
    HIDDEN_MEMBER = "hidden from tar readers"
    LOCK = "lock"
    ERROR_LOG = "error log"
    MISSING_INDEX = "missing index.sqlite"
    FOREIGN_URI = "uri names another place"
    EMPTY = "no instances"


SEVERITIES = {
    Kind.UNREADABLE_METADATA: Severity.ERROR,
    Kind.TORN: Severity.ERROR,
    Kind.MISSING_TAR: Severity.ERROR,
    Kind.MISSING_METADATA: Severity.ERROR,
    Kind.UNREADABLE_INSTANCE: Severity.ERROR,
    Kind.WRONG_CHECKSUM: Severity.ERROR,
    Kind.DOUBTFUL_FRAMES: Severity.ERROR,
    Kind.WRONG_TABLE: Severity.WARNING,
    Kind.LOSSY_METADATA: Severity.WARNING,
    Kind.ORPHAN_MEMBER: Severity.WARNING,
    Kind.HIDDEN_MEMBER: Severity.WARNING,
    Kind.LOCK: Severity.WARNING,
    Kind.ERROR_LOG: Severity.WARNING,
    Kind.MISSING_INDEX: Severity.WARNING,
    Kind.FOREIGN_URI: Severity.NOTE,
    Kind.EMPTY: Severity.NOTE,
}

ADVICE = {
    Kind.UNREADABLE_METADATA: "restore metadata.json from a copy, or ingest the series again",
    Kind.TORN: "a writer broke off between metadata and tar: move SERIES.tar and SERIES/ away, and ingest its source again",
    Kind.MISSING_TAR: "restore the tar, or remove metadata.json",
    Kind.MISSING_METADATA: "restore metadata.json, or ingest the files inside the tar again",
    Kind.UNREADABLE_INSTANCE: "take the instance out (`series.remove` of docs/library.md) and ingest its source again",
    Kind.WRONG_CHECKSUM: "the stored bytes are not those that were written; restore the tar",
    Kind.DOUBTFUL_FRAMES: "these frames are refused; the whole file can be fetched",
    Kind.WRONG_TABLE: "codweb locates frames itself; other readers of this table get wrong bytes: --repair-store",
    Kind.LOSSY_METADATA: "codweb reads the headers in the tar; other readers miss these attributes: --repair-store",
    Kind.ORPHAN_MEMBER: "bytes that no metadata names; harmless",
    Kind.HIDDEN_MEMBER: "a gap in the tar hides them from tar, not from codweb: --repair-store",
    Kind.LOCK: "if no writer is at work, its lock was left behind: codweb unlock",
    Kind.ERROR_LOG: "the published library refuses this series; codweb serves it",
    Kind.MISSING_INDEX: "the published library cannot open or append to this series: --repair-store",
    Kind.FOREIGN_URI: "the store was copied; codweb reads where metadata.json lies",
    Kind.EMPTY: "a writer stored no instance of this series",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    series: SeriesKey
    kind: Kind
    detail: str
    """UIDs, tags and numbers; never a value."""
    instance_uid: str | None = None

    @property
    def severity(self) -> Severity:
        return SEVERITIES[self.kind]
