"""An archive on a disk: which one it is, and the places in it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from storage.ingest.sources.archives.compressed import holds_tar, unpack
from storage.ingest.sources.archives.entry import ArchiveRefused, Entry, Left, Member
from storage.ingest.sources.archives.inflate import inflated_head
from storage.ingest.sources.archives.members import DeflatedMember, StoredMember
from storage.ingest.sources.archives.tar import tar_entries
from storage.ingest.sources.archives.zip import zip_entries
from storage.ingest.sources.files import FileState, OpenFile, opened
from storage.ingest.sources.form import HEAD_BYTES, Form, form_of, is_zip_end
from storage.ingest.sources.open_source import SourceChanged
from storage.ingest.sources.place import Notes, Place, member_path, printable, system_reason
from storage.ingest.sources.scratch import Scratch

_TAIL_BYTES = 22
"""The end record of a zip without a comment."""

_PEEK_BYTES = 2048
"""So much of a DEFLATE stream gives the head of what it holds."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that holds files."""

    path: str
    shown: str
    state: FileState
    form: Form


def archive_form(file: OpenFile, head: bytes) -> Form | None:
    """Which archive a file is; None: none that is opened.

    Args:
        head: the first bytes of the file.
    """
    form = form_of(head)
    if form.is_compressed:
        with open(file.descriptor, "rb", closefd=False) as packed:
            return form if holds_tar(packed, form) else None
    if form is Form.OTHER and is_zip_end(file.read_up_to(max(0, file.state.size - _TAIL_BYTES), _TAIL_BYTES)):
        return Form.ZIP
    return form if form.is_archive else None


def archive_places(archive: Archive, notes: Notes, scratch: Scratch) -> Iterator[Place]:
    """Every member that may be a DICOM file, in the order in which they lie; what is wrong is noted, never raised."""
    name = printable(archive.path)
    try:
        if archive.form.is_compressed:
            yield from _compressed_places(archive, notes, scratch)
        else:
            yield from _places(archive, archive.path, archive.state, notes)
    except ArchiveRefused as refusal:
        notes.refuse(name, f"an archive: {refusal}")
    except SourceChanged:
        notes.refuse(name, "changed while it was being read")
    except OSError as error:
        notes.refuse(name, system_reason(error))


def _compressed_places(archive: Archive, notes: Notes, scratch: Scratch) -> Iterator[Place]:
    """The members of a compressed tar; a cut or damaged one gives those that are whole."""
    refusal: ArchiveRefused | None = None
    with opened(archive.path) as file, scratch.new_file() as unpacked:
        file.expect(archive.state)
        try:
            with open(file.descriptor, "rb", closefd=False) as packed:
                for chunk in unpack(packed, archive.form, limit=scratch.limit_of(archive.state.size)):
                    if scratch.is_closed:
                        raise OSError("the ingest has ended")
                    unpacked.write(chunk)
        except ArchiveRefused as error:
            refusal = error
        scratch.count(archive.state.size, unpacked.tell())
        file.expect(archive.state)
        path = unpacked.name
    with opened(path) as file:
        state = file.state
    if refusal is None:
        yield from _places(archive, path, state, notes)
        return
    with suppress(ArchiveRefused):  # it ends without its end because of what is told now
        yield from _places(archive, path, state, notes)
    raise refusal


def _places(archive: Archive, path: str, state: FileState, notes: Notes) -> Iterator[Place]:
    """The members of the plain tar or the zip at `path`."""
    with opened(path) as file:
        file.expect(state)
        walk = zip_entries if archive.form is Form.ZIP else tar_entries
        entries = walk(file.read, state.size)
        for entry in entries:
            inner = member_path(entry.name)
            complaint = _complaint(file, entry)
            if complaint is None and isinstance(entry, Member):
                yield _place(archive, path, state, entry, inner)
            elif complaint is not None:
                note = notes.skip if complaint.holds_nothing else notes.refuse
                note(f"{archive.path}/{inner}", complaint.reason)
        file.expect(state)


def _complaint(file: OpenFile, entry: Entry) -> Left | None:
    """Why an entry is no place; None: it is one."""
    if isinstance(entry, Left):
        return entry
    if entry.packed_size is None:
        head = file.read_up_to(entry.start, min(HEAD_BYTES, entry.size))
    else:
        head = inflated_head(file.read_up_to(entry.start, min(_PEEK_BYTES, entry.packed_size)), HEAD_BYTES)
    return inner_complaint(entry.name, head)


def inner_complaint(name: str, head: bytes) -> Left | None:
    """Why a member that begins so is no place."""
    form = form_of(head)
    if form is Form.DICOMDIR:
        return Left(name, "a DICOMDIR: it lists other files and holds no instance", holds_nothing=True)
    if form.is_archive:
        return Left(name, "an archive inside an archive: unpack the outer one first", holds_nothing=False)
    return None


def _place(archive: Archive, path: str, state: FileState, member: Member, inner: str) -> Place:
    name = printable(f"{archive.path}/{inner}")
    shown = f"{archive.shown}/{inner}"
    stamp = f"{archive.state.stamp}-{archive.state.size:x}+{member.start:x}"
    mtime = archive.state.mtime if member.mtime is None else member.mtime
    if member.packed_size is None:
        return StoredMember(path, state, name, shown, stamp, member.start, member.size, mtime, member.crc32)
    return DeflatedMember(
        path, state, name, shown, stamp, member.start, member.packed_size, member.size, mtime, member.crc32
    )
