"""One read of a tar, and what is known about it before its bytes are: who reads, what it is part of, what lies around it."""

from dataclasses import dataclass

from storage.ranges import ByteRange


@dataclass(frozen=True, slots=True)
class Access:
    """Who reads what."""

    reader: str
    """Names one client; its reads are looked at together. Opaque."""
    extent: ByteRange
    """Bytes of the tar that certainly exist and may be read along: a series, or one instance of it."""
    item: ByteRange | None = None
    """The instance that is read, where it is one slice of a stack: its header and its frame are one step of a scroll.

    None: the bytes read are a part of a large instance (a tile, a frame of a cine).
    """
    position: int | None = None
    """Place of the item in the order of the answers, which need not be that of the tar."""
