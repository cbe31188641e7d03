"""Any sequence of changes against a plain model: after each of them everybody reads what the model holds."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.bucket.memory import MemoryBucket
from storage.writing import Change, writing
from tests.writing.builders import KEY, assert_holds, file_of, made, objects_of, uid_of

NUMBERS = st.integers(1, 8)
VALUES = st.integers(1, 3)

ADDED = st.dictionaries(NUMBERS, VALUES, max_size=4)
REMOVED = st.sets(NUMBERS, max_size=6)
FIELD = st.sampled_from([b"1", b'{"a":[1.50,"\xc3\xbc"]}', None])

STEP = st.one_of(
    st.tuples(st.just("add"), ADDED),
    st.tuples(st.just("remove"), REMOVED),
    st.tuples(st.just("replace"), ADDED),
    st.tuples(st.just("rewrite"), ADDED),
    st.tuples(st.just("field"), FIELD),
    st.tuples(st.just("conflict"), NUMBERS),
)


class Model:
    """What the series holds, and what its metadata says beside."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.field: Any = None
        self.conflicts: dict[int, list[str]] = {}

    @property
    def files(self) -> Mapping[str, bytes]:
        return {uid_of(number): file_of(number, value, side=value + 3) for number, value in self.values.items()}

    def change(self, verb: str, given: Any) -> Change | None:
        """The change, made here at once; None: there is nothing to change."""
        if verb == "field":
            return self._set_field(given)
        if verb == "conflict":
            return self._note(given)
        present = dict(self.values)
        removed: set[int] = set()
        added: dict[int, int] = {}
        if verb == "add":
            added = {number: value for number, value in given.items() if number not in present}
        elif verb == "remove":
            removed = given & present.keys()
        else:
            added = given
            removed = set(present) if verb == "rewrite" else given.keys() & present.keys()
        if not added and not removed:
            return None
        kept = {number: value for number, value in present.items() if number not in removed}
        self.values = kept | added
        self.conflicts = {number: paths for number, paths in self.conflicts.items() if number in kept}
        if not self.values:
            self.field = None  # the series is gone, and its fields with it
        new = tuple(made(number, value, side=value + 3) for number, value in added.items())
        if verb == "rewrite":
            return Change(add=new, is_rewrite=True)
        return Change(add=new, remove=frozenset(map(uid_of, removed)))

    def _set_field(self, text: bytes | None) -> Change | None:
        if not self.values:
            return None
        self.field = None if text is None else json.loads(text)
        return Change(fields={"site": None if text is None else msgspec.Raw(text)})

    def _note(self, number: int) -> Change | None:
        if number not in self.values:
            return None
        paths = self.conflicts.setdefault(number, [])
        paths.append(f"/path/{len(paths)}")
        return Change(conflicts={uid_of(number): (paths[-1],)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sessions=st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_changes_leave_what_the_model_holds(sessions: list[list[tuple[str, Any]]]) -> None:
    """Sessions of several commits; of instances of three sizes, so that they fall into each other's places."""

    async def run() -> None:
        bucket, model = MemoryBucket("model"), Model()
        for steps in sessions:
            async with writing(bucket, KEY) as series:
                for verb, given_value in steps:
                    change = model.change(verb, given_value)
                    if change is not None:
                        before = _starts(await objects_of(bucket))
                        await series.commit(change)
                        await _check(bucket, model, before, change)
        assert KEY.lock not in await objects_of(bucket)

    asyncio.run(run())


async def _check(bucket: MemoryBucket, model: Model, before: Mapping[str, tuple[int, str]], change: Change) -> None:
    objects = await objects_of(bucket)
    objects.pop(KEY.lock)
    if not model.values:
        assert objects == {}
        return
    series = assert_holds(objects, model.files)
    assert series.document.get("site") == model.field
    for number, value in model.values.items():
        entry = series.entries[uid_of(number)]
        assert entry["diff_hash_dupe_paths"] == model.conflicts.get(number, [])
        assert series.value_of(uid_of(number)) == value
    for new in change.add:  # other bytes of an instance never come to lie where its old ones were
        entry = series.entries[new.instance_uid]
        start, crc32c = before.get(new.instance_uid, (-1, ""))
        assert start != entry["headers"]["start_byte"] or crc32c == entry["crc32c"]


def _starts(objects: Mapping[str, bytes]) -> dict[str, tuple[int, str]]:
    """By UID: where the old metadata has it, and its checksum."""
    if KEY.metadata not in objects:
        return {}
    instances = json.loads(gzip.decompress(objects[KEY.metadata]))["cod"]["instances"]
    return {uid: (entry["headers"]["start_byte"], entry["crc32c"]) for uid, entry in instances.items()}
