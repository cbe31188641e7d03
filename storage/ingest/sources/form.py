"""What a file is, told from its first bytes: names mean nothing in a folder of DICOM files."""

import struct
from enum import Enum, auto

HEAD_BYTES = 512
"""As many as telling needs: one block of a tar."""

_MEDIA_DIRECTORY = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""Media Storage SOP Class UID (0002,0002) of a DICOMDIR; always among the first elements. PS3.10 §7.1, PS3.4 §I.4."""

_ZIP_END = struct.Struct("<4s4H2IH")
"""The end record of a zip without a comment."""


class Form(Enum):
    """Kinds of files that an ingest tells apart."""

    DICOM = auto()
    DICOMDIR = auto()
    TAR = auto()
    ZIP = auto()
    GZIP = auto()
    BZIP2 = auto()
    XZ = auto()
    ZSTD = auto()
    OTHER = auto()

    @property
    def is_compressed(self) -> bool:
        """Whether a tar may lie inside, compressed as one piece."""
        return self in (Form.GZIP, Form.BZIP2, Form.XZ, Form.ZSTD)

    @property
    def is_archive(self) -> bool:
        return self in (Form.TAR, Form.ZIP) or self.is_compressed


_MAGIC = {
    b"PK\x03\x04": Form.ZIP,
    b"PK\x05\x06": Form.ZIP,  # an empty one
    b"\x1f\x8b\x08": Form.GZIP,
    b"BZh": Form.BZIP2,
    b"\xfd7zXZ\x00": Form.XZ,
    b"\x28\xb5\x2f\xfd": Form.ZSTD,
}


def form_of(head: bytes) -> Form:
    """The form of a file that begins so. `DICM` counts first: a preamble may hold any other magic (PS3.10 §7.1)."""
    if head[128:132] == b"DICM":
        return Form.DICOMDIR if _MEDIA_DIRECTORY in head else Form.DICOM
    if head[257:262] == b"ustar":
        return Form.TAR
    for magic, form in _MAGIC.items():
        if head.startswith(magic):
            return form
    return Form.OTHER


def is_zip_end(tail: bytes) -> bool:
    """Whether a file that ends so is a zip behind something else, such as a program that unpacks it."""
    if len(tail) < _ZIP_END.size:
        return False
    magic, *_, comment_bytes = _ZIP_END.unpack(tail[-_ZIP_END.size :])
    return bool(magic == b"PK\x05\x06" and comment_bytes == 0)
