"""A planned tar as the pieces that a bucket puts together: what stays is copied, what is new is read and checked."""

from collections.abc import AsyncIterator, Callable

import google_crc32c

from storage.bucket.base import ObjectInfo, Piece, StoredRange
from storage.cod.tar import TarMember, member_header, padding_bytes
from storage.errors import InstanceUnreadable
from storage.writing.change import NewInstance
from storage.writing.tar_plan import TarPlan

SMALL_BYTES = 1 << 20
"""Short members are handed over together, so that a series of small instances costs no step for each."""

OnBytes = Callable[[int], None]
"""Called with the number of further bytes of new instances that were handed to the bucket."""


async def tar_pieces(plan: TarPlan, tar: ObjectInfo | None, on_bytes: OnBytes) -> AsyncIterator[Piece]:
    """The new tar from its first byte to its last.

    Args:
        tar: the present one; None where nothing of it is kept.

    Raises:
        InstanceUnreadable: the bytes of a new instance are not those that were described.
    """
    if plan.lead:
        yield plan.lead
    for run in plan.kept:
        assert tar is not None  # what is kept lies in it
        yield StoredRange(tar.key, run, tar.version)
    waiting: list[bytes | memoryview] = []
    size = 0
    for new, member in plan.added:
        waiting.append(member_header(member))
        size += len(waiting[-1])
        async for chunk in _checked(new, member):
            on_bytes(len(chunk))
            waiting.append(chunk)
            size += len(chunk)
            if size >= SMALL_BYTES:
                yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
                waiting, size = [], 0
        waiting.append(bytes(padding_bytes(member.size)))
        size += len(waiting[-1])
    yield b"".join((*waiting, plan.layout.end_of_archive))


async def _checked(new: NewInstance, member: TarMember) -> AsyncIterator[bytes]:
    """The bytes of a new instance; an end that is not the described one breaks the upload off."""
    checksum = count = 0
    async for chunk in new.read():
        data = chunk if isinstance(chunk, bytes) else bytes(chunk)  # a view may be of a buffer that is used again
        checksum = google_crc32c.extend(checksum, data)
        count += len(data)
        if count > member.size:
            break
        yield data
    if count != member.size or checksum != new.crc32c:
        raise InstanceUnreadable(f"instance {new.instance_uid}: its bytes are no longer those that were described")
