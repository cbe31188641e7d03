"""Which bytes hold a frame, and the frame cut out of them: verified, little endian, starting at bit 0.

Source: PS3.5 §8.1.1 and §8.2 (bits and bytes of native frames), §A.4 (items of encapsulated ones).
"""

from array import array
from typing import Final

from storage.dicom.fragments import ITEM, SEQUENCE_END
from storage.dicom.locator import PixelKind, PixelLocator
from storage.errors import FrameNotFound, InstanceUnreadable
from storage.ranges import ByteRange

_WORD_CODES: Final = {2: "H", 4: "I", 8: "Q"}


def frame_range(locator: PixelLocator, frame_index: int) -> ByteRange:
    """The bytes to read for a frame (from 0), relative to the P10; for a deflated instance to the inflated data set.

    Native frames that share a byte or a big endian word with their neighbours come with all of it.

    Raises:
        FrameNotFound: there is no such frame.
        InstanceUnreadable: NumberOfFrames promises it, and the stored bytes do not hold it for certain.
    """
    if locator.stored_kind is PixelKind.DOUBTFUL:
        raise InstanceUnreadable("the stored structure leaves it in doubt which bytes are which frame")
    if locator.kind is PixelKind.NONE and locator.is_cut:
        raise InstanceUnreadable("the file ends within a data element, before any pixel data")
    if not 0 <= frame_index < locator.frame_count:
        raise FrameNotFound(f"frame {frame_index + 1} of {locator.frame_count}")
    if locator.stored_kind is PixelKind.ENCAPSULATED:
        start, stop = locator.span_starts[frame_index], locator.span_stops[frame_index]
        if stop == 0:
            raise InstanceUnreadable(f"offset table and fragments disagree about frame {frame_index + 1}")
        return ByteRange(start, stop)
    length = locator.value_stop - locator.value_start
    if _is_whole_value(locator):
        return ByteRange(locator.value_start, locator.value_stop)
    word_bits = 8 * locator.word_bytes
    start = frame_index * locator.frame_bits // word_bits * locator.word_bytes
    stop = -(-(frame_index + 1) * locator.frame_bits // word_bits) * locator.word_bytes
    if stop > length:
        raise InstanceUnreadable(f"frame {frame_index + 1} ends at byte {stop} of {length} bytes of pixel data")
    return ByteRange(locator.value_start + start, locator.value_start + stop)


def extract_frame(
    locator: PixelLocator, frame_index: int, data: bytes | memoryview, wanted: ByteRange | None = None
) -> bytes | memoryview:
    """Cut a frame out of the bytes of its `frame_range`; no copy where the stored bytes are the frame.

    `wanted` is the frame's range, where the caller has it already.

    Native frames come in little endian order and start at bit 0; of encapsulated ones comes the payload of their
    fragments, with the padding byte that is stored.

    Raises:
        FrameNotFound, InstanceUnreadable: as `frame_range`; or the bytes are not what the locator says.
    """
    if wanted is None:
        wanted = frame_range(locator, frame_index)
    view = memoryview(data)
    if len(view) != wanted.length:
        raise InstanceUnreadable(f"frame {frame_index + 1}: wanted {wanted.length} bytes, got {len(view)}")
    if locator.stored_kind is PixelKind.ENCAPSULATED:
        return _payload(view, frame_index, is_last=frame_index == locator.frame_count - 1)
    return _native_frame(locator, frame_index, view, wanted.start - locator.value_start)


def _is_whole_value(locator: PixelLocator) -> bool:
    """Whether the only frame is the value as it is stored: of unknown size, or shorter than the geometry says.

    A file that was cut short still has the one frame it has; nothing could be mistaken for another frame.
    """
    length = locator.value_stop - locator.value_start
    return locator.frame_count == 1 and not 0 < locator.frame_bits <= 8 * length


def _payload(view: memoryview, frame_index: int, *, is_last: bool) -> bytes | memoryview:
    """The fragments' payload without their item headers; the items must tile the bytes exactly.

    Behind the last frame the sequence delimiter must follow, and what comes then is not pixel data.
    """
    parts: list[memoryview] = []
    position = 0
    while position < len(view):
        header = bytes(view[position : position + 8])
        if is_last and header[:4] == SEQUENCE_END:
            break
        stop = position + 8 + int.from_bytes(header[4:], "little")
        if header[:4] != ITEM or len(header) < 8 or stop > len(view):
            raise InstanceUnreadable(f"frame {frame_index + 1}: no fragment {position} bytes into its range")
        if stop > position + 8:
            parts.append(view[position + 8 : stop])
        position = stop
    else:
        if is_last:
            raise InstanceUnreadable(f"frame {frame_index + 1}: pixel data has no end")
    if not parts:
        raise InstanceUnreadable(f"frame {frame_index + 1} is empty")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _native_frame(locator: PixelLocator, frame_index: int, view: memoryview, start: int) -> bytes | memoryview:
    """A native frame out of `view`, which begins `start` bytes into the value."""
    swapped = _little_endian(view, locator.word_bytes)
    if _is_whole_value(locator):
        return swapped
    first_bit = frame_index * locator.frame_bits - 8 * start
    if first_bit % 8 == 0 and locator.frame_bits % 8 == 0:
        first = first_bit // 8
        return swapped[first : first + locator.frame_bits // 8]
    bits = int.from_bytes(swapped, "little") >> first_bit & ((1 << locator.frame_bits) - 1)
    return bits.to_bytes((locator.frame_bits + 7) // 8, "little")


def _little_endian(view: memoryview, word_bytes: int) -> memoryview:
    """The bytes with those of each word reversed. Raises InstanceUnreadable for half a word."""
    if word_bytes == 1:
        return view
    if len(view) % word_bytes:
        raise InstanceUnreadable(f"{len(view)} bytes of pixel data in words of {word_bytes}")
    words = array(_WORD_CODES[word_bytes])
    words.frombytes(view)
    words.byteswap()
    return memoryview(words).cast("B")
