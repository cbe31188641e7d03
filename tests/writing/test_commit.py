"""A change of a series: what lies in the bucket afterwards, read by others than us."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from storage.bucket import Bucket
from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.cod.entry import Limits
from storage.cod.writing import PackedSeries, series_members
from storage.errors import InstanceExists, InstanceNotFound, InstanceUnreadable, ObjectChanged, SeriesFull, SeriesLocked
from storage.writing import Change, read_stored, writing
from tests.writing.builders import (
    KEY,
    assert_holds,
    file_of,
    made,
    model_of,
    objects_of,
    told,
    uid_of,
    with_other_bytes,
)


@pytest.fixture(params=["memory", "folder"])
async def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bucket]:
    opened: Bucket = MemoryBucket("commit") if request.param == "memory" else FolderBucket(tmp_path)
    yield opened
    await opened.close()


async def commit(bucket: Bucket, change: Change, *, announce: bool = True) -> None:
    async with writing(bucket, KEY, owner="test", announce=change if announce else None) as series:
        await series.commit(change)


@pytest.mark.parametrize("announce", [True, False])
async def test_a_new_series_is_read_by_everybody(bucket: Bucket, announce: bool) -> None:
    await commit(bucket, Change(add=(made(2), made(1), made(3))), announce=announce)

    series = assert_holds(await objects_of(bucket), model_of([2, 1, 3]))
    assert list(series.document)[:2] == ["study_uid", "series_uid"]
    assert [series.value_of(uid) for uid in series.entries] == [2, 1, 3]


async def test_a_hashed_series_says_so_at_its_head_and_keeps_saying_so(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1),), is_deid=True))
    await commit(bucket, Change(add=(made(2),)))

    series = assert_holds(await objects_of(bucket), model_of([1, 2]))
    assert (series.document["deid_study_uid"], series.document["deid_series_uid"]) == (KEY.study_uid, KEY.series_uid)
    assert not {"study_uid", "series_uid"} & series.document.keys()


async def test_what_is_appended_follows_and_what_was_there_stays_where_it_was(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1), made(2))))
    before = told(await objects_of(bucket)).entries

    await commit(bucket, Change(add=(made(4), made(3))))

    after = assert_holds(await objects_of(bucket), model_of([1, 2, 4, 3])).entries
    assert {uid: after[uid] for uid in before} == before


async def test_what_is_removed_leaves_no_gap(bucket: Bucket) -> None:
    await commit(bucket, Change(add=tuple(map(made, range(1, 7)))))

    await commit(bucket, Change(remove=frozenset(map(uid_of, (1, 3, 4, 6)))))

    assert_holds(await objects_of(bucket), model_of([2, 5]))


async def test_instances_are_removed_and_added_in_one_step(bucket: Bucket) -> None:
    await commit(bucket, Change(add=tuple(map(made, range(1, 4)))))

    await commit(bucket, Change(remove=frozenset({uid_of(1)}), add=(made(9), made(1, 77))))

    assert_holds(await objects_of(bucket), model_of([2, 3, 9]) | {uid_of(1): file_of(1, 77)})


async def test_a_series_without_instances_is_none(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1), made(2))))
    await bucket.write(f"{KEY.stem}/thumbnail.jpg", b"a picture")

    await commit(bucket, Change(remove=frozenset(map(uid_of, (1, 2)))))

    assert await objects_of(bucket) == {}


async def test_a_series_that_is_gone_can_be_stored_again(bucket: Bucket) -> None:
    change = Change(add=(made(1),))
    await commit(bucket, change)
    await commit(bucket, Change(is_rewrite=True))

    await commit(bucket, change)

    assert_holds(await objects_of(bucket), model_of([1]))


async def test_a_rewrite_keeps_no_instance_and_every_field_of_users(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1), made(2)), fields={"site": msgspec.Raw(b'{"ward":[7, null]}')}))

    await commit(bucket, Change(add=(made(3), made(2, 5)), is_rewrite=True))

    series = told(await objects_of(bucket))
    assert series.stated == {uid_of(3): file_of(3), uid_of(2): file_of(2, 5)}
    assert (series.document["site"], series.value_of(uid_of(2))) == ({"ward": [7, None]}, 5)


async def test_other_bytes_of_an_instance_never_lie_where_its_old_ones_did(bucket: Bucket) -> None:
    """A reader that still has the old metadata.json would take them for the old ones."""
    await commit(bucket, Change(add=tuple(map(made, (1, 2, 3)))))
    before = told(await objects_of(bucket)).entries

    await commit(bucket, Change(add=tuple(made(number, 50 + number) for number in (1, 2, 3)), is_rewrite=True))

    series = told(await objects_of(bucket))
    assert list(series.stated.values()) == [file_of(number, 50 + number) for number in (1, 2, 3)]
    assert list(series.files) == list(before)
    for uid, entry in before.items():
        assert series.entries[uid]["headers"]["start_byte"] != entry["headers"]["start_byte"]


@pytest.mark.parametrize("removed", [(3,), (2, 3), (1, 2, 3)])
async def test_nor_when_they_are_replaced_one_by_one(bucket: Bucket, removed: tuple[int, ...]) -> None:
    """The last ones of a tar: what replaces them would lie exactly in their place."""
    await commit(bucket, Change(add=tuple(map(made, (1, 2, 3)))))
    before = told(await objects_of(bucket)).entries

    others = tuple(made(number, 50 + number) for number in removed)
    await commit(bucket, Change(add=others, remove=frozenset(map(uid_of, removed))))

    series = told(await objects_of(bucket))
    for number in removed:
        uid = uid_of(number)
        assert series.stated[uid] == file_of(number, 50 + number)
        assert series.entries[uid]["headers"]["start_byte"] != before[uid]["headers"]["start_byte"]
    assert series.files == series.stated


async def test_a_series_that_was_rewritten_is_appended_to_and_rewritten_again(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1), made(2))))
    for value in (60, 61, 62):
        await commit(bucket, Change(add=(made(1, value), made(2, value)), is_rewrite=True))
        await commit(bucket, Change(add=(made(3),)))
        await commit(bucket, Change(remove=frozenset({uid_of(3)})))

    series = told(await objects_of(bucket))
    assert series.files == series.stated == {uid_of(1): file_of(1, 62), uid_of(2): file_of(2, 62)}


async def test_metadata_alone_is_changed_without_touching_the_tar(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1), made(2)), fields={"old": msgspec.Raw(b"1"), "stays": msgspec.Raw(b"2")}))
    tar = await bucket.head(KEY.tar)

    await commit(
        bucket,
        Change(
            conflicts={uid_of(1): ("/a.dcm", "/b.dcm"), uid_of(2): ("/ü",)},
            fields={"old": None, "new": msgspec.Raw(b'"x"')},
        ),
    )
    await commit(bucket, Change(conflicts={uid_of(1): ("/b.dcm", "/c.dcm")}))

    series = assert_holds(await objects_of(bucket), model_of([1, 2]))
    assert (await bucket.head(KEY.tar)).version == tar.version
    assert series.entries[uid_of(1)]["diff_hash_dupe_paths"] == ["/a.dcm", "/b.dcm", "/c.dcm"]
    assert series.entries[uid_of(2)]["diff_hash_dupe_paths"] == ["/ü"]
    assert {name: series.document.get(name) for name in ("old", "stays", "new")} == {
        "old": None,
        "stays": 2,
        "new": "x",
    }


async def test_a_thumbnail_goes_with_the_instances_that_it_shows(bucket: Bucket) -> None:
    shown = msgspec.Raw(b'{"uri":"x/thumbnail.jpg"}')
    picture = f"{KEY.stem}/thumbnail.jpg"
    await commit(bucket, Change(add=(made(1), made(2)), thumbnail=shown))
    await bucket.write(picture, b"a picture")

    await commit(bucket, Change(add=(made(3),)))
    assert told(await objects_of(bucket)).document["thumbnail"] == {"uri": "x/thumbnail.jpg"}
    assert picture in await objects_of(bucket)

    await commit(bucket, Change(remove=frozenset({uid_of(1)})))
    series = assert_holds(await objects_of(bucket), model_of([2, 3]))
    assert "thumbnail" not in series.document


async def test_several_commits_under_one_lock(bucket: Bucket) -> None:
    first = Change(add=(made(1),))
    async with writing(bucket, KEY, owner="test", announce=first) as series:
        await series.commit(first)
        await series.commit(Change(add=(made(2),), fields={"a": msgspec.Raw(b"1")}))
        stored = await series.commit(Change(add=(made(3),), remove=frozenset({uid_of(1)})))
        await series.commit(Change(conflicts={uid_of(2): ("/x",)}))
        assert KEY.lock in await objects_of(bucket)

    assert list(stored.entries) == [uid_of(2), uid_of(3)]
    told_series = assert_holds(await objects_of(bucket), model_of([2, 3]))
    assert told_series.entries[uid_of(2)]["diff_hash_dupe_paths"] == ["/x"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Change(add=(made(1, 9),)), InstanceExists),
        (Change(add=(made(7), made(7))), ValueError),
        (Change(remove=frozenset({uid_of(8)})), InstanceNotFound),
        (Change(conflicts={uid_of(8): ("/x",)}), InstanceNotFound),
        (Change(fields={"cod": msgspec.Raw(b"{}")}), ValueError),
        (Change(fields={"codweb_journal": None}), ValueError),
        (Change(add=(made(5), with_other_bytes(made(6), file_of(6, 7)))), InstanceUnreadable),
        (Change(add=(made(5), with_other_bytes(made(6), file_of(6) + b"\0"))), InstanceUnreadable),
        (Change(add=(made(5), with_other_bytes(made(6), file_of(6)[:-1]))), InstanceUnreadable),
    ],
)
async def test_a_change_that_cannot_be_made_touches_nothing(
    bucket: Bucket, change: Change, error: type[Exception]
) -> None:
    await commit(bucket, Change(add=(made(1), made(2))))
    before = await objects_of(bucket)

    with pytest.raises(error):
        await commit(bucket, change)

    assert await objects_of(bucket) == before


async def test_a_new_series_whose_bytes_are_not_those_described_leaves_nothing(bucket: Bucket) -> None:
    with pytest.raises(InstanceUnreadable):
        await commit(bucket, Change(add=(made(1), with_other_bytes(made(2), b""))))

    assert await objects_of(bucket) == {}


async def test_progress_is_told_in_bytes_of_new_instances(bucket: Bucket) -> None:
    counts: list[int] = []
    async with writing(bucket, KEY) as series:
        await series.commit(Change(add=(made(1), made(2))), on_bytes=counts.append)

    assert sum(counts) == 2 * len(file_of(1))


@pytest.mark.parametrize("late", [False, True])
async def test_a_tar_that_somebody_replaced_under_our_lock_stops_us_before_metadata(bucket: Bucket, late: bool) -> None:
    """Writers that ignore locks exist; what they wrote is not described by metadata of ours."""
    await commit(bucket, Change(add=(made(1),)))
    metadata = (await objects_of(bucket))[KEY.metadata]
    new = made(2)

    async def read() -> AsyncIterator[bytes | memoryview]:
        if late:
            await bucket.write(KEY.tar, b"another one")
        async for chunk in new.read():
            yield chunk

    with pytest.raises((SeriesLocked, ObjectChanged)):
        async with writing(bucket, KEY) as series:
            if not late:
                await bucket.write(KEY.tar, b"another one")
            await series.commit(Change(add=(replace(new, read=read),)))

    after = await objects_of(bucket)
    assert (after[KEY.tar], after[KEY.metadata]) == (b"another one", metadata)
    assert KEY.lock not in after


async def test_a_lock_that_was_taken_away_stops_us_before_anything_is_replaced(bucket: Bucket) -> None:
    await commit(bucket, Change(add=(made(1),)))
    before = await objects_of(bucket)

    for theirs in (b"theirs", None):
        with pytest.raises(SeriesLocked):
            async with writing(bucket, KEY) as series:
                await bucket.delete(KEY.lock)
                if theirs is not None:
                    await bucket.create(KEY.lock, theirs)
                await series.commit(Change(add=(made(2),)))

        found = await objects_of(bucket)
        assert found.pop(KEY.lock, None) == theirs
        assert found == before
        await bucket.delete(KEY.lock)


async def test_nothing_is_said_of_a_series_that_is_absent(bucket: Bucket) -> None:
    stored = await read_stored(bucket, KEY)

    assert (stored.is_absent, stored.entries, stored.tar_version) == (True, {}, None)


async def test_the_same_change_twice_is_planned_twice(bucket: Bucket) -> None:
    change = Change(remove=frozenset({uid_of(2)}), add=(made(2, 52),))
    async with writing(bucket, KEY) as series:
        await series.commit(Change(add=tuple(map(made, (1, 2, 3)))))
        await series.commit(change)
        await series.commit(change)

    expected = {uid_of(1): file_of(1), uid_of(3): file_of(3), uid_of(2): file_of(2, 52)}
    assert_holds(await objects_of(bucket), expected)


async def test_what_was_announced_is_made_of_the_series_as_it_is_when_it_is_committed(bucket: Bucket) -> None:
    change = Change(add=(made(1),))
    async with writing(bucket, KEY, announce=change) as series:
        await series.commit(Change(fields={"note": msgspec.Raw(b'"kept"')}))
        await series.commit(change)

    assert assert_holds(await objects_of(bucket), model_of((1,))).document["note"] == "kept"


def test_a_series_that_nobody_could_read_again_is_not_made() -> None:
    entries = [(uid_of(number), msgspec.Raw(b'{"x":1}')) for number in range(4)]

    PackedSeries(series_members(KEY), entries).check(KEY, Limits(max_instances=4))
    with pytest.raises(SeriesFull, match="4 instances, more than 3"):
        PackedSeries(series_members(KEY), entries).check(KEY, Limits(max_instances=3))
    with pytest.raises(SeriesFull, match="more than can be read"):
        PackedSeries(series_members(KEY), entries).check(KEY, Limits(max_bytes=100))


async def test_a_rewrite_takes_the_place_of_a_series_however_damaged_it_is() -> None:
    bucket = MemoryBucket("damaged")
    async with writing(bucket, KEY, owner="test") as series:
        await series.commit(Change(add=(made(1), made(2))))
    await bucket.write(KEY.tar, b"no tar at all")

    async with writing(bucket, KEY, owner="test") as series:
        await series.commit(Change(add=(made(3),), is_rewrite=True))

    assert_holds(await objects_of(bucket), model_of([3]))
