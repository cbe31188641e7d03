"""What an answer must be before anything is timed: checked against the manifest, never against the server itself."""

import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

import msgspec
import zstandard

from benchmarks.data import Instance, Series
from benchmarks.load import Answer
from benchmarks.slides import Slide

Check = Callable[[Answer], None]
"""Raises WrongAnswer."""

_STUDY_UID, _SERIES_UID, _INSTANCE_UID = "0020000D", "0020000E", "00080018"


class WrongAnswer(Exception):
    """An answer that is not what the manifest says: nothing is measured then."""


class _Attribute(msgspec.Struct):
    Value: list[str]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart answer."""

    headers: str
    body: memoryview


def studies(known: Collection[str], count: int) -> Check:
    """A page of so many different studies, all of them known."""

    def check(answer: Answer) -> None:
        listed = _uids(answer, _STUDY_UID)
        _expect(len(listed) == len(set(listed)) == count and set(listed) <= set(known), f"{len(listed)} studies")

    return check


def series_of(expected: Sequence[Series]) -> Check:
    """Exactly these series."""

    def check(answer: Answer) -> None:
        listed = _uids(answer, _SERIES_UID)
        _expect(sorted(listed) == sorted(one.series_uid for one in expected), f"{len(listed)} series")

    return check


def instances(expected: Sequence[Instance], *, in_order: bool = True) -> Check:
    """Exactly these instances, in this order, or (Orthanc) in any."""
    wanted = [one.uid for one in expected]

    def check(answer: Answer) -> None:
        listed = _uids(answer, _INSTANCE_UID)
        is_right = listed == wanted if in_order else sorted(listed) == sorted(wanted)
        _expect(is_right, f"{len(listed)} instances, {len(expected)} expected")

    return check


def metadata(
    expected: Sequence[Instance], attributes: int, *, depth: str | None, texts: set[bytes] | None = None
) -> Check:
    """Metadata of exactly these instances, each with all its attributes.

    Args:
        attributes: how many each must have at least.
        depth: what X-COD-Metadata must say; None: nothing, it is another server.
        texts: shared by checks of the same resource: digests of the text in every content coding, which must agree.
    """

    def check(answer: Answer) -> None:
        found = answer.headers.get("x-cod-metadata")
        _expect(depth is None or found == depth, f"{found} metadata instead of {depth}")
        entries = _entries(answer)
        uids = sorted(_uid(entry, _INSTANCE_UID) for entry in entries)
        _expect(uids == sorted(one.uid for one in expected), f"{len(uids)} instances, {len(expected)} expected")
        least = min(map(len, entries))
        _expect(least >= attributes, f"an instance of {least} attributes, {attributes} expected")
        if texts is not None:
            texts.add(sha256(decoded(answer)).digest())
            _expect(len(texts) == 1, "the codings do not hold the same text")

    return check


def frame(expected: Instance) -> Check:
    """The one frame of this instance, alone or as the only part."""

    def check(answer: Answer) -> None:
        [body] = _bodies(answer)
        _expect(sha256(body).hexdigest() == expected.frame_sha256, f"other pixels than those of {expected.uid}")

    return check


def tile(slide: Slide, index: int) -> Check:
    """One tile of a slide, `index` from 0, alone or as the only part."""

    def check(answer: Answer) -> None:
        [body] = _bodies(answer)
        _expect(sha256(body).hexdigest() == slide.tiles[index], f"another tile than {index} of {slide.uid}")

    return check


def files(expected: Sequence[Instance], *, in_order: bool = True) -> Check:
    """The files of these instances, bit for bit, in this order, or (Orthanc) in any."""
    wanted = [one.sha256 for one in expected]

    def check(answer: Answer) -> None:
        found = [sha256(body).hexdigest() for body in _bodies(answer)]
        _expect(len(found) == len(wanted), f"{len(found)} parts, {len(wanted)} expected")
        is_right = found == wanted if in_order else sorted(found) == sorted(wanted)
        _expect(is_right, "other files than those of the series")

    return check


def same_bytes(body: bytes) -> Check:
    """Exactly these bytes."""
    length, digest = len(body), sha256(body).digest()

    def check(answer: Answer) -> None:
        _expect(len(answer.body) == length and sha256(answer.body).digest() == digest, "other bytes than the file")

    return check


def decoded(answer: Answer) -> bytes:
    """The body without its content coding; gzip as one member, which is all that browsers read."""
    coding = answer.headers.get("content-encoding", "identity")
    if coding == "gzip":
        member = zlib.decompressobj(31)
        text = member.decompress(answer.body)
        _expect(member.eof and not member.unused_data, "not one gzip member")
        return text
    if coding == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(BytesIO(answer.body), read_across_frames=True) as reader:
            return reader.read()
    _expect(coding == "identity", f"coding {coding}")
    return answer.body


def parts(answer: Answer) -> list[Part]:
    """The parts of a multipart answer (RFC 2046 §5.1.1), in its order."""
    _, _, boundary = answer.headers["content-type"].partition("boundary=")
    delimiter = b"\r\n--" + boundary.partition(";")[0].strip('" ').encode()
    view, found = memoryview(answer.body), []
    _expect(answer.body.startswith(delimiter[2:]), "a body that does not begin with its boundary")
    position = len(delimiter) - 2
    while not answer.body.startswith(b"--", position):
        head_stop = answer.body.index(b"\r\n\r\n", position)
        stop = answer.body.find(delimiter, head_stop + 4)
        _expect(stop >= 0, "a part without an end")
        found.append(Part(str(view[position + 2 : head_stop], "latin-1"), view[head_stop + 4 : stop]))
        position = stop + len(delimiter)
    return found


def _bodies(answer: Answer) -> list[memoryview]:
    _expect(answer.status == 200, f"status {answer.status}")
    if answer.headers["content-type"].startswith("multipart/related"):
        return [part.body for part in parts(answer)]
    return [memoryview(answer.body)]


def _uids(answer: Answer, tag: str) -> list[str]:
    return [_uid(entry, tag) for entry in _entries(answer)]


def _entries(answer: Answer) -> list[dict[str, msgspec.Raw]]:
    _expect(answer.status == 200, f"status {answer.status}")
    return msgspec.json.decode(decoded(answer), type=list[dict[str, msgspec.Raw]])


def _uid(entry: dict[str, msgspec.Raw], tag: str) -> str:
    return msgspec.json.decode(entry[tag], type=_Attribute).Value[0]


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongAnswer(otherwise)
