"""What every bucket on the network does about faults on the way, as tests: no wrong byte, and no absence.

A bucket's test class says how to reach its service through a `FaultProxy`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from storage.bucket import Bucket, Piece
from storage.bucket.options import Patience
from storage.errors import ObjectChanged, ObjectExists, StorageUnavailable, TryAgain
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, LARGE, Place, in_pieces, listed, stored, streamed
from tests.support.fault_proxy import Act, Delay, Drip, FaultProxy, Refuse, Reset, Shorten, fault_proxy

PATIENCE = Patience(connect_seconds=0.1, read_seconds=0.4, attempts=3, backoff_seconds=0.01, requests=4)
RANGE = ByteRange(1000, 6000)
WANTED = DATA[1000:6000]
LONG = LARGE * 2
"""10 MiB: long enough for a store to copy it."""
FAULTS = [Refuse(503), Refuse(500), Refuse(429), Reset(), Shorten(100), Delay(60)]


class FaultContract:
    """Inherited by one class for each service; without bytes on the way there are no faults, so not for folders."""

    def upstream(self) -> str:
        """The service's address."""
        raise NotImplementedError

    def make_faulty(self, url: str, patience: Patience) -> Place:
        """An empty store: its bucket goes through `url`, its hands do not."""
        raise NotImplementedError

    @pytest.fixture
    async def proxy(self) -> AsyncIterator[FaultProxy]:
        async with fault_proxy(self.upstream()) as proxy:
            yield proxy

    @pytest.fixture
    async def place(self, proxy: FaultProxy) -> AsyncIterator[Place]:
        place = self.make_faulty(proxy.url, PATIENCE)
        yield place
        await place.bucket.close()

    async def test_one_read_is_one_request(self, place: Place, proxy: FaultProxy) -> None:
        place.put(KEY, DATA)
        version = (await place.bucket.head(KEY)).version
        proxy.heal()

        await place.bucket.read(KEY, RANGE, version=version)
        await place.bucket.read(KEY, version=version)
        await streamed(place.bucket, KEY, RANGE, 1000, version)

        assert [seen.method for seen in proxy.requests] == ["GET"] * 3

    @pytest.mark.parametrize("fault", FAULTS, ids=repr)
    async def test_a_fault_that_passes_is_not_seen(
        self, place: Place, proxy: FaultProxy, fault: Refuse | Reset | Shorten | Delay
    ) -> None:
        place.put(KEY, DATA)
        for _ in range(2):
            proxy.strike(fault)
            answer = await place.bucket.read(KEY, RANGE)
            assert bytes(answer.data) == WANTED
            proxy.strike(fault)
            assert bytes((await place.bucket.read(KEY)).data) == DATA
            proxy.strike(fault)
            assert await streamed(place.bucket, KEY, RANGE, 700) == WANTED
        proxy.strike(fault)
        assert (await place.bucket.head(KEY)).size == len(DATA)
        proxy.strike(fault)
        assert await listed(place.bucket) == [KEY]

    @pytest.mark.parametrize("fault", [Refuse(503), Reset(), Delay(60)], ids=repr)
    async def test_a_fault_that_stays_is_no_absence(
        self, place: Place, proxy: FaultProxy, fault: Refuse | Reset | Delay
    ) -> None:
        place.put(KEY, DATA)
        bucket = place.bucket
        version = (await bucket.head(KEY)).version
        calls: list[Callable[[Bucket], Awaitable[object]]] = [
            lambda bucket: bucket.read(KEY, RANGE),
            lambda bucket: bucket.read(KEY, RANGE, version=version),
            lambda bucket: bucket.read(KEY),
            lambda bucket: streamed(bucket, KEY, RANGE, 100),
            lambda bucket: bucket.head(KEY),
            lambda bucket: listed(bucket),
            lambda bucket: bucket.write(KEY, b"new"),
            lambda bucket: bucket.create("new", b"new"),
            lambda bucket: bucket.replace(KEY, b"new", version=version),
            lambda bucket: bucket.upload(KEY, in_pieces([b"new"])),
            lambda bucket: bucket.delete(KEY),
        ]
        proxy.strike(fault, times=1000)

        failures = await asyncio.gather(*(call(bucket) for call in calls), return_exceptions=True)

        for failure in failures:
            assert isinstance(failure, StorageUnavailable)
            assert not isinstance(failure, ObjectChanged | TryAgain)
        assert place.get(KEY) == DATA
        assert place.keys() == [KEY]

    @pytest.mark.parametrize("fault", [Refuse(503), Reset(is_heard=True)], ids=repr)
    async def test_a_fault_of_any_request_of_an_upload_that_copies_is_not_seen(
        self, place: Place, proxy: FaultProxy, fault: Refuse | Reset
    ) -> None:
        place.put(KEY, LONG)
        for at in range(100):
            whole = await stored(place.bucket, KEY, 0, len(LONG))
            proxy.heal()
            if at > 0:
                proxy.strike(Act(lambda: None), times=at)
            proxy.strike(fault)

            await place.bucket.upload("copy", in_pieces([whole, b"%d" % at]))

            assert place.get("copy") == LONG + b"%d" % at
            if len(proxy.requests) <= at:  # the fault met none
                break
        assert 4 <= at < 99

    @pytest.mark.parametrize("fault", [Refuse(503), Reset(), Delay(60)], ids=repr)
    async def test_a_fault_that_stays_while_an_upload_copies_leaves_the_object_as_it_was(
        self, place: Place, proxy: FaultProxy, fault: Refuse | Reset | Delay
    ) -> None:
        place.put(KEY, LONG)
        whole = await stored(place.bucket, KEY, 0, len(LONG))

        async def pieces() -> AsyncIterator[Piece]:
            yield b"new"
            proxy.strike(fault, times=1000)
            yield whole

        with pytest.raises(StorageUnavailable) as caught:
            await place.bucket.upload(KEY, pieces())

        assert not isinstance(caught.value, ObjectChanged | TryAgain)
        assert place.get(KEY) == LONG

    async def test_a_place_where_nobody_listens_is_unavailable(self, proxy: FaultProxy) -> None:
        place = self.make_faulty("http://127.0.0.1:9", PATIENCE)

        with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:9"):
            await place.bucket.read(KEY, RANGE)
        await place.bucket.close()

    async def test_a_broken_stream_goes_on_where_it_broke(self, place: Place, proxy: FaultProxy) -> None:
        place.put(KEY, LARGE)
        for _ in range(2):
            proxy.strike(Shorten(1_500_000))

        assert await streamed(place.bucket, KEY, ByteRange(0, len(LARGE)), 300_000) == LARGE

        starts = [int(seen.headers["range"].removeprefix("bytes=").split("-")[0]) for seen in proxy.requests]
        assert len(starts) == 3
        assert starts[0] == 0 < starts[1] <= 1_500_000 < starts[2]

    async def test_a_slow_body_is_waited_for_as_long_as_it_comes(self, place: Place, proxy: FaultProxy) -> None:
        place.put(KEY, DATA)
        proxy.strike(Drip(2_000, 0.05))

        assert await streamed(place.bucket, KEY, RANGE, 1000) == WANTED
        assert len(proxy.requests) == 1

    async def test_a_body_that_stands_still_is_asked_for_again(self, place: Place, proxy: FaultProxy) -> None:
        place.put(KEY, DATA)
        proxy.strike(Drip(2_000, 60))
        assert await streamed(place.bucket, KEY, RANGE, 1000) == WANTED
        proxy.strike(Drip(2_000, 60))
        assert bytes((await place.bucket.read(KEY, RANGE)).data) == WANTED
        proxy.strike(Drip(2_000, 60))
        assert bytes((await place.bucket.read(KEY)).data) == DATA

        assert len(proxy.requests) == 6

    async def test_an_object_replaced_between_two_requests_is_changed(self, place: Place, proxy: FaultProxy) -> None:
        place.put(KEY, DATA)
        version = (await place.bucket.read(KEY, ByteRange(0, 10))).version
        proxy.strike(Act(lambda: place.put(KEY, DATA[::-1])))

        with pytest.raises(ObjectChanged):
            await place.bucket.read(KEY, RANGE, version=version)

    async def test_an_object_replaced_under_a_broken_stream_shows_no_byte_of_the_new_one(
        self, place: Place, proxy: FaultProxy
    ) -> None:
        place.put(KEY, b"o" * 2_000_000)
        proxy.strike(Shorten(1_000_000))
        proxy.strike(Act(lambda: place.put(KEY, b"n" * 2_000_000)))
        received = b""

        with pytest.raises(ObjectChanged):
            async for chunk in place.bucket.stream(KEY, ByteRange(0, 2_000_000)):
                received += chunk

        assert set(received) <= set(b"o")

    async def test_a_conditional_write_whose_answer_was_lost_is_ours(self, place: Place, proxy: FaultProxy) -> None:
        proxy.strike(Reset(is_heard=True))
        created = await place.bucket.create(KEY, b"mine")
        assert place.get(KEY) == b"mine"

        proxy.strike(Reset(is_heard=True))
        replaced = await place.bucket.replace(KEY, b"mine again", version=created.version)
        assert place.get(KEY) == b"mine again"
        assert replaced.version == (await place.bucket.head(KEY)).version != created.version

    async def test_a_conditional_write_that_another_won_is_theirs(self, place: Place, proxy: FaultProxy) -> None:
        proxy.strike(Reset())
        proxy.strike(Act(lambda: place.put(KEY, b"theirs")))

        with pytest.raises(ObjectExists):
            await place.bucket.create(KEY, b"mine")

        assert place.get(KEY) == b"theirs"

    async def test_a_cancelled_read_gives_up_its_connection_and_its_place(
        self, place: Place, proxy: FaultProxy
    ) -> None:
        place.put(KEY, DATA)
        patient = self.make_faulty(proxy.url, Patience(read_seconds=60, requests=1))
        patient.put(KEY, DATA)
        proxy.strike(Delay(60))
        read = asyncio.create_task(patient.bucket.read(KEY, RANGE))
        await _until(lambda: bool(proxy.requests))

        read.cancel()
        await asyncio.gather(read, return_exceptions=True)

        await _until(lambda: proxy.open_connections == 0)
        async with asyncio.timeout(5):
            assert bytes((await patient.bucket.read(KEY, RANGE)).data) == WANTED
        await patient.bucket.close()

    async def test_a_late_answer_is_hedged(self, proxy: FaultProxy) -> None:
        place = self.make_faulty(proxy.url, Patience(read_seconds=60, hedge_seconds=0.2))
        place.put(KEY, DATA)
        await place.bucket.read(KEY, RANGE)
        proxy.heal()
        proxy.strike(Delay(60))

        began = time.monotonic()
        answer = await place.bucket.read(KEY, RANGE)

        assert bytes(answer.data) == WANTED
        assert time.monotonic() - began < 5
        assert len(proxy.requests) == 2
        await place.bucket.close()


async def _until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110  sockets tell nobody
            await asyncio.sleep(0.01)
