"""One series on its way into the datastore: what of it is new, as far as is known by now."""

from collections.abc import Iterable, Mapping
from functools import partial

import msgspec

from storage.errors import InstanceUnreadable
from storage.ingest.candidate import Candidate, Candidates
from storage.ingest.dedupe import Judgement, judge
from storage.ingest.describe import Description
from storage.ingest.order import in_order
from storage.ingest.reader import SeriesReader
from storage.ingest.report import InstanceNote, Outcome, RefusedFile
from storage.ingest.stored import ORIGINALS_FIELD, Known, Original, originals_of
from storage.ingest.transcoding import Remade
from storage.keys import SeriesKey
from storage.writing import Change, NewInstance, StoredSeries


class SeriesJob:
    """The files of one series, judged anew whenever more is known about what is stored."""

    def __init__(self, key: SeriesKey, candidates: Candidates) -> None:
        self.key = key
        self._all = candidates
        self._held: dict[int, Description] = {}
        """By number: those of the last change, which holds them anyway."""
        found = candidates.groups.get(key, [])
        self.candidates = [*self._distinct(found)]
        self.files, self.size = len(found), sum(each.size for each in found)
        self.refused: list[RefusedFile] = []
        """Files that could be described and not be read again."""
        self.reader = SeriesReader(())
        """Of the last change."""
        self.told_files = 0
        self.told_bytes = 0
        """What progress has heard of."""
        self.is_held = False
        """Whether its lock is, or was, ours."""
        self.is_begun = False
        """Whether a change broke off where it may be finished without our files: what it was to add counts as new."""
        self.is_planned = False
        self.remade: dict[str, Remade] = {}
        """By instance UID: what is stored in the place of the file that came."""
        self.tried: set[str] = set()
        """UIDs of those that were transcoded, or keep their bytes."""
        self._is_new = False
        self._judged = Judgement()
        self._known: Mapping[str, Known] = {}
        self._originals: Mapping[str, Original] = {}
        self._added: dict[str, Candidate] = {}
        """What the last change was to add."""

    @property
    def new(self) -> Mapping[str, Candidate]:
        """By instance UID."""
        return self._finished | self._judged.new

    @property
    def is_missing(self) -> bool:
        """Whether something of it is not stored yet."""
        return bool(self._judged.new)

    @property
    def same(self) -> list[Candidate]:
        finished = self._finished
        return [each for each in self._judged.same if finished.get(each.instance_uid) is not each]

    @property
    def conflict(self) -> list[Candidate]:
        return self._judged.conflict

    @property
    def outcome(self) -> Outcome:
        """What became of it, if nothing went wrong."""
        if self.is_planned:
            return Outcome.PLANNED
        if self.new:
            return Outcome.STORED if self._is_new else Outcome.APPENDED
        return Outcome.UNCHANGED if self._known else Outcome.FAILED

    def note(self, candidate: Candidate) -> InstanceNote:
        return InstanceNote(
            self._described(candidate).place.name, self.key.study_uid, self.key.series_uid, candidate.instance_uid
        )

    def judge(self, stored: StoredSeries, known: Mapping[str, Known]) -> None:
        """Hold the files against what is stored."""
        if not self.is_begun:
            self._is_new = stored.is_absent
        self._known = known
        self._originals = originals_of(stored)
        self._judged = judge(self.candidates, known)

    def refuse(self, description: Description, error: InstanceUnreadable) -> None:
        """Go on without a file."""
        broken = self._judged.new[description.instance_uid]
        told = f"{description.place.name} "  # where the engine told the reason, it knows no more than that
        reason = str(error)[len(told) :] if str(error).startswith(told) else "changed while it was being ingested"
        self.refused.append(RefusedFile(self._name(broken), reason))
        self.candidates.remove(broken)
        self._judged = judge(self.candidates, self._known)

    def hold(self) -> Mapping[str, Description]:
        """Have the descriptions of what is new at hand; by instance UID."""
        self._held = {each.number: self._described(each) for each in self._judged.new.values()}
        return {uid: self._held[each.number] for uid, each in self._judged.new.items()}

    def change(self) -> Change | None:
        """What has to be written, or None."""
        conflicts = self._conflicts(self._known)
        if not self._judged.new and not conflicts:
            return None
        self._added = {**self._judged.new}
        remade = {uid: self.remade[uid] for uid in self._added if uid in self.remade}
        new = in_order(remade[uid].description if uid in remade else each for uid, each in self.hold().items())
        self.reader = SeriesReader(new)
        originals = {**self._originals, **{uid: each.original for uid, each in remade.items()}}
        return Change(
            add=tuple(_new_instance(each, self.reader, position) for position, each in enumerate(new)),
            conflicts=conflicts,
            fields={ORIGINALS_FIELD: msgspec.Raw(msgspec.json.encode(originals))} if remade else {},
        )

    @property
    def conflicts_with_new(self) -> Mapping[str, tuple[str, ...]]:
        """Paths of files that contradict what has just been added."""
        return self._conflicts(self._judged.new)

    def _conflicts(self, stored: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """By instance UID: paths that are to be noted at it."""
        uids = frozenset(stored)
        paths: dict[str, tuple[str, ...]] = {}
        for each in self._judged.conflict:
            uid = each.instance_uid
            if uid in uids:
                shown = self._described(each).place.shown
                if uid not in self._known or shown not in self._known[uid].noted:
                    paths[uid] = (*paths.get(uid, ()), shown)
        return paths

    @property
    def _finished(self) -> dict[str, Candidate]:
        """What a change added that broke off, and was finished afterwards."""
        if not self.is_begun:
            return {}
        return {each.instance_uid: each for each in self._judged.same if self._added.get(each.instance_uid) is each}

    def _distinct(self, candidates: Iterable[Candidate]) -> Iterable[Candidate]:
        """Without files that were found twice, under two of the sources."""
        firsts: dict[str, Candidate] = {}
        found: dict[str, set[tuple[str, str]]] = {}
        for each in candidates:
            first = firsts.setdefault(each.instance_uid, each)
            if first is not each:
                if each.instance_uid not in found:  # most instances come once: what is theirs is not looked up
                    found[each.instance_uid] = {self._identity(first)}
                twins = found[each.instance_uid]
                identity = self._identity(each)
                if identity in twins:
                    continue
                twins.add(identity)
            yield each

    def _identity(self, candidate: Candidate) -> tuple[str, str]:
        """Two names that differ in what cannot be printed are one text, and two files."""
        place = self._described(candidate).place
        return place.name, place.stamp

    def _name(self, candidate: Candidate) -> str:
        return self._described(candidate).place.name

    def _described(self, candidate: Candidate) -> Description:
        return self._held.get(candidate.number) or self._all.description_of(candidate)


def _new_instance(description: Description, reader: SeriesReader, position: int) -> NewInstance:
    return NewInstance(
        instance_uid=description.instance_uid,
        size=description.size,
        mtime=description.mtime,
        crc32c=description.crc32c,
        has_pixeldata=description.has_pixeldata,
        metadata=description.metadata,
        offset_table=description.offset_table,
        original_path=description.place.shown,
        read=partial(reader.read, position),
    )
