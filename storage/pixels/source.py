"""An opened DICOM file whose frames can be told apart and decoded one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from storage.dicom.elements import Kind, walk
from storage.dicom.fragments import FragmentScanner
from storage.dicom.nesting import PIXEL_TAGS
from storage.dicom.p10 import P10, Header
from storage.dicom.pixels import PixelKind, PixelLocator, extract_frame, frame_range, locate_pixels
from storage.errors import InstanceUnreadable
from storage.pixels.decode import Samples, decode_frame
from storage.pixels.description import DESCRIBING_TAGS, PixelDescription, Place, describe_pixels


@dataclass(frozen=True, slots=True)
class PixelSource:
    """The pixels of one file, which lies in memory as a whole."""

    p10: P10
    header: Header
    locator: PixelLocator
    description: PixelDescription

    @classmethod
    def of(cls, p10: P10, header: Header) -> "PixelSource":
        """The pixels of an opened file.

        Raises:
            InstanceUnreadable: there are none, or they are not described, or cannot be told apart.
        """
        locator = locate_pixels(p10.file_window, p10, header)
        if locator.kind is PixelKind.NONE:
            raise InstanceUnreadable("no pixel data")
        return cls(p10, header, locator, describe_pixels(p10, _places(p10)))

    @property
    def frame_count(self) -> int:
        return self.locator.frame_count

    @property
    def pixels_stop(self) -> int:
        """Where the value of the pixels ends; of an encapsulated one, behind its delimiter."""
        pixels = self.header.pixels
        assert pixels is not None
        if pixels.stop >= 0:
            return pixels.stop
        scanner = FragmentScanner(pixels.start, self.p10.stop)
        scanner.feed(self.p10.window.view(pixels.start, self.p10.stop))
        return scanner.finish().stop

    def payload(self, frame_index: int) -> bytes | memoryview:
        """A frame as it is coded, without items. Raises InstanceUnreadable: it is not there for certain."""
        wanted = frame_range(self.locator, frame_index)
        return extract_frame(self.locator, frame_index, self.p10.window.view(wanted.start, wanted.stop), wanted)

    def frames(self) -> Iterator[Samples]:
        """Every frame, decoded. Raises InstanceUnreadable: one cannot be."""
        for index in range(self.frame_count):
            yield decode_frame(self.payload(index), self.description)


def _places(p10: P10) -> Mapping[int, Place]:
    """The elements before the pixels that describe them."""
    places: dict[int, Place] = {}
    for kind, tag, vr, start, stop in walk(
        p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian, skip_sequences=True
    ):
        if kind == Kind.ELEMENT and tag in DESCRIBING_TAGS:
            places[tag] = vr, start, stop
        if tag in PIXEL_TAGS:
            break
    return places
