"""What a change costs: requests and bytes are exact."""

import pytest

from storage.bucket.memory import MemoryBucket
from storage.writing import Change, writing
from tests.support.buckets import RecordingBucket
from tests.writing.builders import KEY, assert_holds, file_of, made, model_of, objects_of, uid_of


async def stored(count: int) -> RecordingBucket:
    bucket = RecordingBucket(MemoryBucket("counted"))
    async with writing(bucket, KEY) as series:
        await series.commit(Change(add=tuple(map(made, range(1, count + 1)))))
    bucket.reset()
    return bucket


async def test_an_append_to_a_thousand_instances_reads_two_headers_and_sends_one_member() -> None:
    bucket = await stored(1000)
    size = (await bucket.inner.head(KEY.tar)).size

    async with writing(bucket, KEY) as series:
        await series.commit(Change(add=(made(1001),)))

    ranges = [each for each in bucket.requests if each.key == KEY.tar and each.verb == "read"]
    assert sum((each.stop or 0) - (each.start or 0) for each in ranges) < 16 << 10
    assert bucket.count("stream") == 0
    [(_, copied)] = bucket.copied
    assert copied.key == KEY.tar
    assert (copied.range.start, copied.range.stop >= size - 10240) == (0, True)
    assert bucket.bytes_sent(".tar") < len(file_of(1)) + 1536 + 512 + 10240
    verbs = [(each.verb, each.key.removeprefix(KEY.stem)) for each in bucket.requests]
    assert verbs == [
        ("read", "/metadata.json"), ("head", ".tar"), ("create", "/.gradient.lock"),
        ("head", "/metadata.json"), ("head", ".tar"),  # nobody wrote meanwhile
        ("read", ".tar"), ("read", ".tar"),  # it is the tar that metadata.json speaks of
        ("upload", ".tar"), ("replace", "/.gradient.lock"), ("write", "/index.sqlite"),
        ("head", "/.gradient.lock"), ("replace", "/metadata.json"),
        ("read", "/metadata.json"), ("head", ".tar"),
        ("head", "/.gradient.lock"), ("delete", "/.gradient.lock"),
    ]  # fmt: skip
    assert_holds(await objects_of(bucket.inner), model_of(range(1, 1002)))


async def test_a_new_series_costs_fourteen_requests() -> None:
    bucket = RecordingBucket(MemoryBucket("counted"))
    change = Change(add=(made(1), made(2)))

    async with writing(bucket, KEY, announce=change) as series:
        await series.commit(change)

    verbs = [(each.verb, each.key.removeprefix(KEY.stem)) for each in bucket.requests]
    assert verbs == [
        ("read", "/metadata.json"), ("head", ".tar"), ("create", "/.gradient.lock"),
        ("head", "/metadata.json"), ("head", ".tar"),
        ("upload", ".tar"), ("head", "/.gradient.lock"), ("write", "/index.sqlite"),
        ("head", "/.gradient.lock"), ("create", "/metadata.json"),
        ("read", "/metadata.json"), ("head", ".tar"),
        ("head", "/.gradient.lock"), ("delete", "/.gradient.lock"),
    ]  # fmt: skip


@pytest.mark.parametrize("removed", [(1,), (50, 51, 99, 100)])
async def test_a_removal_sends_nothing_but_the_end_of_the_tar(removed: tuple[int, ...]) -> None:
    bucket = await stored(100)

    async with writing(bucket, KEY) as series:
        await series.commit(Change(remove=frozenset(map(uid_of, removed))))

    assert bucket.bytes_sent(".tar") <= 10240
    assert len(bucket.copied) <= 2
    rest = [number for number in range(1, 101) if number not in removed]
    assert_holds(await objects_of(bucket.inner), model_of(rest))


async def test_metadata_alone_moves_nothing_of_the_tar() -> None:
    bucket = await stored(10)

    async with writing(bucket, KEY) as series:
        await series.commit(Change(conflicts={uid_of(3): ("/x",)}))

    assert {each.verb for each in bucket.requests if each.key == KEY.tar} == {"head"}
    assert bucket.count(key_suffix="index.sqlite") == 0
