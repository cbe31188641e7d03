"""Which of the files of a series are new, which are there already, and which contradict what is there.

Pure. What is stored counts first, then the file that was found first: existing data is never given up for other data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from storage.ingest.candidate import Candidate
from storage.ingest.stored import Known


@dataclass(slots=True)
class Judgement:
    """Candidates of one series by their fate."""

    new: dict[str, Candidate] = field(default_factory=dict)
    """By instance UID."""
    same: list[Candidate] = field(default_factory=list)
    conflict: list[Candidate] = field(default_factory=list)


def judge(candidates: Iterable[Candidate], known: Mapping[str, Known]) -> Judgement:
    """Tell new, same and conflict apart, by UID, size and checksum.

    Args:
        known: stored instances by UID.
    """
    found = Judgement()
    for candidate in sorted(candidates, key=lambda each: each.number):
        uid = candidate.instance_uid
        stored = known.get(uid)
        if stored is not None:
            is_same = stored.is_same(candidate.size, candidate.crc32c)
        elif (first := found.new.setdefault(uid, candidate)) is candidate:
            continue
        else:
            is_same = (first.size, first.crc32c) == (candidate.size, candidate.crc32c)
        (found.same if is_same else found.conflict).append(candidate)
    return found
