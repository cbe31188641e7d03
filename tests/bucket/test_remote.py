"""A bucket on the network: what it checks, how long it is patient, and what it says in the end."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from storage.bucket.base import ObjectInfo
from storage.bucket.options import Patience
from storage.bucket.remote import RemoteBucket
from storage.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    ObjectTruncated,
    StorageUnavailable,
    TryAgain,
)
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, in_pieces, listed, streamed
from tests.support.scripted_store import LOST, UNAVAILABLE, Fault, ScriptedStore, StillClock, failing

PATIENCE = Patience(connect_seconds=0.01, read_seconds=0.04, attempts=4, backoff_seconds=1, longest_backoff_seconds=5)
RANGE = ByteRange(1000, 1700)
WANTED = DATA[1000:1700]
STUCK = Fault(seconds=60)


def remote(store: ScriptedStore, clock: StillClock | None = None, **patience: float) -> RemoteBucket:
    return RemoteBucket(store, replace(PATIENCE, **patience), (clock or StillClock()).clock)


def holding(*script: Fault | None) -> ScriptedStore:
    store = ScriptedStore(*script)
    store.keep(KEY, DATA)
    return store


async def test_one_read_is_one_request() -> None:
    store = holding()

    part = await remote(store).read(KEY, RANGE, version="v1")
    whole = await remote(store).read(KEY)

    assert (bytes(part.data), part.size, part.version) == (WANTED, len(DATA), "v1")
    assert bytes(whole.data) == DATA
    assert store.requests == [("get", KEY, RANGE, "v1"), ("stream", KEY, None, None)]


async def test_a_failure_that_passes_is_not_seen() -> None:
    for fault in (UNAVAILABLE, LOST, STUCK, Fault(keep=699), Fault(keep=0)):
        store = holding(fault, fault)

        answer = await remote(store).read(KEY, RANGE)

        assert bytes(answer.data) == WANTED
        assert store.verbs() == ["get"] * 3


async def test_a_body_that_ends_early_is_never_the_whole_object() -> None:
    store = holding(Fault(keep=5000), Fault(keep=5000, broken=TryAgain("reset")))

    assert bytes((await remote(store).read(KEY)).data) == DATA
    assert len(store.requests) == 3


async def test_waits_double_and_are_drawn_from_zero_to_their_bound() -> None:
    for drawn in (0.0, 0.5, 1.0):
        clock = StillClock(drawn)

        await remote(holding(*[UNAVAILABLE] * 5), clock, attempts=6).read(KEY, RANGE)

        assert clock.slept == [drawn * bound for bound in (1, 2, 4, 5, 5)]


async def test_the_store_says_how_long_to_wait() -> None:
    clock = StillClock()

    await remote(holding(failing(TryAgain("slow down", after_seconds=3))), clock).read(KEY, RANGE)

    assert clock.slept == [4]  # what was asked, and the jitter on top


async def test_who_shall_wait_longer_than_we_would_is_told_so_at_once() -> None:
    clock = StillClock()

    with pytest.raises(StorageUnavailable) as caught:
        await remote(holding(failing(TryAgain("slow down", after_seconds=90))), clock).read(KEY, RANGE)

    assert clock.slept == []
    assert caught.value.retry_after_seconds == 90


async def test_the_last_failure_tells_what_was_tried_and_how_long() -> None:
    with pytest.raises(StorageUnavailable, match=r"4 attempts in 7\.0 s; the last: 503") as caught:
        await remote(holding(*[UNAVAILABLE] * 4)).read(KEY, RANGE)

    assert KEY in str(caught.value)
    assert not isinstance(caught.value, TryAgain)


async def test_what_will_not_pass_is_asked_once() -> None:
    for error in (StorageUnavailable("403"), ObjectNotFound(KEY), ObjectChanged(KEY)):
        store = holding(failing(error))

        with pytest.raises(type(error)):
            await remote(store).read(KEY, RANGE)

        assert len(store.requests) == 1


async def test_an_answer_of_another_version_is_changed_even_if_the_store_does_not_say_so() -> None:
    class Forgetful(ScriptedStore):
        async def get(
            self, key: str, range: ByteRange | None, version: str | None
        ) -> tuple[ObjectInfo, bytes | memoryview]:
            return await super().get(key, range, None)

    store = Forgetful()
    store.keep(KEY, DATA)

    with pytest.raises(ObjectChanged):
        await remote(store).read(KEY, RANGE, version="v0")


async def test_a_range_behind_the_end_is_truncated_unless_the_object_is_another_one() -> None:
    store = holding()
    bucket = remote(store)

    for beyond in (ByteRange(10_239, 10_241), ByteRange(20_000, 20_001)):
        with pytest.raises(ObjectTruncated):
            await bucket.read(KEY, beyond, version="v1")
    store.script = [Fault(before=lambda: None), None]
    store.keep(KEY, b"short")
    with pytest.raises(ObjectChanged):
        await bucket.read(KEY, ByteRange(20_000, 20_001), version="v1")


async def test_a_416_is_believed_only_of_the_version_that_was_named() -> None:
    """Some stores look at the range before they look at the condition."""
    store = holding(failing(ObjectTruncated(KEY)))
    store.keep(KEY, b"short")

    with pytest.raises(ObjectChanged):
        await remote(store).read(KEY, ByteRange(20, 21), version="v1")


async def test_a_stream_goes_on_where_it_broke_with_its_version() -> None:
    store = holding(Fault(keep=250, broken=TryAgain("reset")), UNAVAILABLE, Fault(keep=130))

    assert await streamed(remote(store), KEY, RANGE, 64) == WANTED
    assert store.requests == [
        ("stream", KEY, ByteRange(1000, 1700), None),
        ("stream", KEY, ByteRange(1250, 1700), "v1"),
        ("stream", KEY, ByteRange(1250, 1700), "v1"),
        ("stream", KEY, ByteRange(1380, 1700), "v1"),
    ]


async def test_a_stream_that_gets_on_may_break_as_often_as_it_likes() -> None:
    store = holding(*[Fault(keep=100)] * 6)

    assert await streamed(remote(store, attempts=2), KEY, RANGE, 1000) == WANTED
    assert len(store.requests) == 7


async def test_a_stream_that_does_not_get_on_is_given_up() -> None:
    store = holding(Fault(keep=100), *[Fault(keep=0)] * 4)

    with pytest.raises(StorageUnavailable, match="4 attempts"):
        await streamed(remote(store), KEY, RANGE, 1000)


async def test_a_stream_that_stands_still_is_begun_again() -> None:
    store = holding(STUCK, Fault(pause=60))

    assert await streamed(remote(store), KEY, RANGE, 1000) == WANTED
    assert len(store.requests) == 3


async def test_an_object_replaced_under_a_broken_stream_is_changed_and_no_byte_of_it_is_seen() -> None:
    store = holding(Fault(keep=250), Fault(before=lambda: None))
    received = b""

    with pytest.raises(ObjectChanged):
        async for chunk in remote(store).stream(KEY, RANGE, chunk_bytes=50):
            store.keep(KEY, bytes(len(DATA)))
            received += chunk

    assert received == DATA[1000:1250]


async def test_requests_in_flight_are_bounded_and_the_first_to_come_is_the_first_served() -> None:
    store = holding(*[Fault(seconds=0.005)] * 20)
    bucket = remote(store, requests=3, read_seconds=5)

    await asyncio.gather(*(bucket.read(KEY, ByteRange(at, at + 1)) for at in range(20)))

    assert store.most_in_flight == 3
    assert [asked.start for _, _, asked, _ in store.requests if asked is not None] == list(range(20))


async def test_consumers_of_streams_can_always_read_something_else() -> None:
    store = holding()
    bucket = remote(store, requests=4, read_seconds=5)

    async def consume() -> int:
        count = 0
        async for _ in bucket.stream(KEY, ByteRange(0, 1000), chunk_bytes=100):
            count += len((await bucket.read(KEY, ByteRange(0, 1))).data)
        return count

    async with asyncio.timeout(5):
        assert await asyncio.gather(*(consume() for _ in range(20))) == [10] * 20
    assert store.most_in_flight == 4


async def test_streams_can_be_uploaded_to_their_own_bucket() -> None:
    bucket = remote(holding(), requests=1, read_seconds=5)

    async with asyncio.timeout(5):
        await asyncio.gather(*(bucket.upload(f"copy/{at}", bucket.stream(KEY, RANGE)) for at in range(5)))

    assert bytes((await bucket.read("copy/4")).data) == WANTED


async def test_a_wait_before_the_next_attempt_keeps_no_place() -> None:
    store = holding(UNAVAILABLE, *[None] * 5)
    waiting = asyncio.Event()
    clock = StillClock()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.sleep(0.05)

    bucket = RemoteBucket(store, replace(PATIENCE, requests=1), replace(clock.clock, sleep=sleep))
    failing_read = asyncio.create_task(bucket.read(KEY, RANGE))
    await waiting.wait()

    async with asyncio.timeout(0.03):
        await bucket.read(KEY, RANGE)

    assert bytes((await failing_read).data) == WANTED


async def test_a_cancelled_read_gives_its_place_back() -> None:
    store = holding(STUCK, STUCK)
    bucket = remote(store, requests=1, read_seconds=60)
    read = asyncio.create_task(bucket.read(KEY, RANGE))
    stream = asyncio.create_task(streamed(bucket, KEY, RANGE, 100))
    await asyncio.sleep(0.01)

    for task in (read, stream):
        task.cancel()
    await asyncio.gather(read, stream, return_exceptions=True)
    store.script = []

    assert store.in_flight == 0
    assert bytes((await bucket.read(KEY, RANGE)).data) == WANTED
    assert await streamed(bucket, KEY, RANGE, 100) == WANTED


async def test_a_stream_that_is_left_gives_its_place_back() -> None:
    store = holding()
    bucket = remote(store, requests=1)
    stream = bucket.stream(KEY, RANGE, chunk_bytes=10)
    assert isinstance(stream, AsyncIterator)
    assert bytes(await anext(stream)) == WANTED[:10]
    assert store.in_flight == 1

    await stream.aclose()  # type: ignore[attr-defined]

    assert store.in_flight == 0
    assert bytes((await bucket.read(KEY, RANGE)).data) == WANTED


async def test_streams_that_nobody_takes_from_do_not_keep_others_waiting_and_go_on_where_they_were() -> None:
    store = holding()
    bucket = remote(store, requests=4, idle_stream_seconds=0.02, read_seconds=5)
    idle = [aiter(bucket.stream(KEY, RANGE, chunk_bytes=60)) for _ in range(2)]
    begun = [bytes(await anext(stream)) for stream in idle]

    async with asyncio.timeout(2):
        assert await streamed(bucket, KEY, RANGE, 1000) == WANTED
    await asyncio.sleep(0.05)
    assert store.in_flight == 0

    for stream, first in zip(idle, begun, strict=True):
        assert first + b"".join([bytes(chunk) async for chunk in stream]) == WANTED
    # A piece of 100 bytes had come: what is left of it needs no request.
    assert store.requests[3:] == [("stream", KEY, ByteRange(1100, 1700), "v1")] * 2
    assert store.in_flight == 0


async def test_a_stream_taken_up_again_shows_no_byte_of_another_object() -> None:
    store = holding()
    stream = aiter(remote(store, idle_stream_seconds=0.01).stream(KEY, RANGE, chunk_bytes=100))
    assert bytes(await anext(stream)) == WANTED[:100]
    await asyncio.sleep(0.03)
    store.keep(KEY, bytes(len(DATA)))

    with pytest.raises(ObjectChanged):
        await anext(stream)


async def test_a_stream_left_while_idle_gives_everything_back() -> None:
    store = holding()
    bucket = remote(store, requests=1, idle_stream_seconds=0.01)
    stream = bucket.stream(KEY, RANGE, chunk_bytes=10)
    assert isinstance(stream, AsyncGenerator)
    await anext(stream)
    await asyncio.sleep(0.03)

    await stream.aclose()

    assert store.in_flight == 0
    assert await streamed(bucket, KEY, RANGE, 100) == WANTED


async def test_a_stream_that_is_taken_from_in_time_is_one_request() -> None:
    store = holding()
    received = b""

    async for chunk in remote(store, idle_stream_seconds=0.5).stream(KEY, RANGE, chunk_bytes=50):
        await asyncio.sleep(0.01)
        received += chunk

    assert (received, len(store.requests)) == (WANTED, 1)


async def test_who_waits_too_long_for_a_place_is_told_that_this_server_is_busy() -> None:
    store = holding(Fault(seconds=60), Fault(seconds=60))
    bucket = RemoteBucket(store, replace(PATIENCE, requests=2, connect_seconds=60))
    reads = [asyncio.create_task(bucket.read(KEY, RANGE)) for _ in range(2)]
    await asyncio.sleep(0.01)

    calls: list[Awaitable[object]] = [bucket.read(KEY, RANGE), bucket.head(KEY), streamed(bucket, KEY, RANGE, 100)]
    for call in calls:
        async with asyncio.timeout(2):
            with pytest.raises(StorageUnavailable, match=r"busy: .*2 requests") as caught:
                await call
        assert not isinstance(caught.value, TryAgain)
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)

    assert bytes((await bucket.read(KEY, RANGE)).data) == WANTED


async def test_a_late_range_is_asked_for_again_and_the_first_answer_counts() -> None:
    store = holding(Fault(seconds=2))
    bucket = remote(store, hedge_seconds=0.01, read_seconds=60)

    began = time.monotonic()
    answer = await bucket.read(KEY, RANGE)

    assert bytes(answer.data) == WANTED
    assert time.monotonic() - began < 1
    assert (len(store.requests), store.in_flight) == (2, 0)


async def test_a_range_that_comes_in_time_is_asked_for_once() -> None:
    store = holding()

    await remote(store, hedge_seconds=1).read(KEY, RANGE)

    assert len(store.requests) == 1


async def test_a_hedge_needs_a_free_place_and_helps_against_failures_too() -> None:
    store = holding(Fault(seconds=0.03))
    await remote(store, hedge_seconds=0.001, requests=1).read(KEY, RANGE)
    assert len(store.requests) == 1

    store = holding(Fault(seconds=0.02, before=UNAVAILABLE.before), Fault(seconds=0.02))
    clock = StillClock()
    assert bytes((await remote(store, clock, hedge_seconds=0.001).read(KEY, RANGE)).data) == WANTED
    assert (len(store.requests), clock.slept) == (2, [])


async def test_a_cancelled_hedge_leaves_nothing_in_flight() -> None:
    store = holding(STUCK, STUCK)
    read = asyncio.create_task(remote(store, hedge_seconds=0.001, read_seconds=60).read(KEY, RANGE))
    await asyncio.sleep(0.02)
    assert store.in_flight == 2

    read.cancel()
    await asyncio.gather(read, return_exceptions=True)

    assert store.in_flight == 0


async def test_a_create_whose_answer_was_lost_is_ours() -> None:
    store = ScriptedStore(LOST)

    info = await remote(store).create(KEY, b"mine")

    assert store.objects[KEY][0] == b"mine"
    assert info.version == store.objects[KEY][1]


async def test_a_replace_whose_answer_was_lost_is_ours() -> None:
    store = holding(LOST)

    info = await remote(store).replace(KEY, b"mine", version="v1")

    assert (store.objects[KEY], info.version) == ((b"mine", "v2"), "v2")


async def test_a_create_that_another_won_meanwhile_is_theirs() -> None:
    store = ScriptedStore(UNAVAILABLE)
    store.script.append(Fault(before=lambda: store.keep(KEY, b"theirs") and None))

    with pytest.raises(ObjectExists):
        await remote(store).create(KEY, b"mine")

    assert store.objects[KEY][0] == b"theirs"


async def test_equal_bytes_of_another_are_theirs_when_every_answer_was_heard() -> None:
    store = holding()

    with pytest.raises(ObjectExists):
        await remote(store).create(KEY, DATA)
    with pytest.raises(ObjectChanged):
        await remote(store).replace(KEY, DATA, version="v0")


async def test_a_write_that_was_never_answered_is_not_known_to_be_written() -> None:
    with pytest.raises(StorageUnavailable, match="not known to be written"):
        await remote(ScriptedStore(*[LOST] * 4)).write(KEY, DATA)


async def test_a_listing_goes_on_behind_the_last_key_it_has() -> None:
    store = ScriptedStore(None, UNAVAILABLE, STUCK)
    for number in range(8):
        store.keep(f"a/{number}", b"")

    assert await listed(remote(store), "a/") == [f"a/{number}" for number in range(8)]
    assert [after for _, _, _, after in store.requests] == ["", "a/2", "a/2", "a/2", "a/5", "a/7"]


async def test_a_listing_out_of_order_is_refused_and_names_that_are_no_keys_are_left_out() -> None:
    store = ScriptedStore()
    for key in ("a/", "a//b", "a/../c", "a/d"):
        store.keep(key, b"")
    assert await listed(remote(store)) == ["a/d"]

    class Shuffled(ScriptedStore):
        async def list(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
            yield [self._info("a/d"), self._info("a/b")]

    shuffled = Shuffled()
    for key in ("a/b", "a/d"):
        shuffled.keep(key, b"")
    with pytest.raises(StorageUnavailable, match="not in order"):
        await listed(remote(shuffled))


async def test_a_folder_named_as_the_prefix_itself_is_no_object() -> None:
    """Web consoles make an empty object `data/` for a folder; below the prefix `data` its key is empty."""
    store = ScriptedStore()

    class Marked(ScriptedStore):
        async def list(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
            yield [ObjectInfo("", 0, "v0", 0), *[info async for page in store.list(prefix, after) for info in page]]

    store.keep("a/d", b"")

    assert await listed(remote(Marked())) == ["a/d"]


@pytest.mark.parametrize("fault", [UNAVAILABLE, STUCK], ids=["refused", "time-out"])
async def test_no_verb_takes_a_failure_for_an_absence(fault: Fault) -> None:
    calls: list[Callable[[RemoteBucket], Awaitable[object]]] = [
        lambda bucket: bucket.read(KEY),
        lambda bucket: bucket.read(KEY, RANGE),
        lambda bucket: bucket.read(KEY, ByteRange(3, 3)),
        lambda bucket: streamed(bucket, KEY, RANGE, 100),
        lambda bucket: bucket.head(KEY),
        lambda bucket: listed(bucket),
        lambda bucket: bucket.write(KEY, DATA),
        lambda bucket: bucket.create("new", DATA),
        lambda bucket: bucket.replace(KEY, DATA, version="v1"),
        lambda bucket: bucket.delete(KEY),
    ]
    for call in calls:
        with pytest.raises(StorageUnavailable) as caught:
            await call(remote(holding(fault, fault), attempts=2))
        assert not isinstance(caught.value, TryAgain | ObjectChanged)


async def test_an_upload_that_breaks_off_is_not_begun_again_because_its_chunks_are_gone() -> None:
    store = holding(UNAVAILABLE)

    with pytest.raises(StorageUnavailable, match="broke off") as caught:
        await remote(store).upload(KEY, in_pieces([b"new"]))

    assert not isinstance(caught.value, TryAgain)
    assert (store.verbs(), store.objects[KEY][0]) == (["put"], DATA)


async def test_closing_closes_the_store() -> None:
    store = ScriptedStore()
    bucket = remote(store)

    await bucket.close()

    assert store.is_closed
    assert (bucket.url, bucket.cheap_head) == ("scripted://store", False)
