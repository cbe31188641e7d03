"""What is known of a file before it is fetched: from the listing of a bucket, or from an index of one's own."""

import binascii
from dataclasses import dataclass

from storage.cod.writing import encode_crc32c


@dataclass(frozen=True, slots=True)
class Hints:
    """Claims about one file; each may be left out.

    With `instance_uid` and `crc32c` of an instance that is known already, the file is not fetched: whether it is the
    same or a conflict follows from the hints. A file that is fetched is held against them, and a wrong one refuses it.
    """

    size: int | None = None
    """Bytes."""
    crc32c: str | int | None = None
    """As object stores list it (base64 of four bytes, the highest first), or as a number."""
    instance_uid: str | None = None
    """As the file has it, in stores of hashed UIDs too; so are the other two."""
    series_uid: str | None = None
    study_uid: str | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError, for a checksum that is none."""
        _ = self.checksum

    @property
    def checksum(self) -> int | None:
        """`crc32c` as a number."""
        if not isinstance(self.crc32c, str):
            if self.crc32c is not None and not 0 <= self.crc32c < 1 << 32:
                raise ValueError(f"{self.crc32c} is no CRC-32C: it has 32 bits")
            return self.crc32c
        try:
            digest = binascii.a2b_base64(self.crc32c, strict_mode=True)
        except ValueError:
            digest = b""
        if len(digest) != 4:
            raise ValueError(f"{self.crc32c[:32]!r} is no CRC-32C: base64 of four bytes, such as 4jvPnQ==")
        return int.from_bytes(digest, "big")

    def mismatch(self, *, size: int, crc32c: int, study_uid: str, series_uid: str, instance_uid: str) -> str | None:
        """Why the hints are wrong about a file that was read; None if they are right."""
        numbers = (("size", self.size, size), ("crc32c", self.checksum, crc32c))
        uids = (
            ("study_uid", self.study_uid, study_uid),
            ("series_uid", self.series_uid, series_uid),
            ("instance_uid", self.instance_uid, instance_uid),
        )
        for name, hinted, found in numbers:
            if hinted is not None and hinted != found:
                if name == "crc32c":
                    return f"the hint {name} says {encode_crc32c(hinted)}, the file has {encode_crc32c(found)}"
                return f"the hint {name} says {hinted}, the file has {found}"
        for name, hinted_uid, found_uid in uids:
            if hinted_uid is not None and hinted_uid != found_uid:
                return f"the hint {name} says {hinted_uid}, the file has {found_uid}"
        return None
