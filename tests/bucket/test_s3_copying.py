"""Copying inside an S3 bucket: what it costs, what it survives, and what is checked because services do not."""

import re
from dataclasses import replace

import pytest

from storage.bucket import StoredRange
from storage.bucket.s3.parts import MIB
from storage.errors import ObjectChanged, StorageUnavailable
from storage.ranges import ByteRange
from tests.bucket.contract import KEY, LARGE, in_pieces, stored
from tests.bucket.test_s3 import place, proxy, said
from tests.support.fault_proxy import Act, Delay, FaultProxy, Refuse, Reset, Seen
from tests.support.moto_server import moto, s3_credentials
from tests.support.s3_place import PREFIX, QUICK, S3Place

__all__ = ["moto", "place", "proxy", "s3_credentials"]

pytestmark = pytest.mark.usefixtures("s3_credentials")

TAR = LARGE * 8
"""40 MiB."""
LONG = LARGE * 3
COPY = "x-amz-copy-source"


def told(seen: Seen) -> str:
    """A request in a word."""
    match seen.method:
        case "POST":
            return "begin" if "uploads" in seen.target.partition("?")[2] else "complete"
        case "PUT" if COPY in seen.headers:
            return "copy"
        case "PUT" if "partNumber" in seen.target:
            return "part"
        case "DELETE":
            return "abort"
        case other:
            return other.lower()


def bytes_sent(proxy: FaultProxy) -> int:
    """Of objects; the list of parts at the end is none."""
    return sum(int(seen.headers.get("content-length", 0)) for seen in proxy.requests if seen.method == "PUT")


def bytes_asked(proxy: FaultProxy) -> int:
    """By GETs, all of which name a range."""
    total = 0
    for seen in proxy.requests:
        if seen.method == "GET":
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers["range"])
            assert found is not None
            total += int(found[2]) + 1 - int(found[1])
    return total


async def test_an_append_sends_the_new_bytes_and_reads_nothing(place: S3Place, proxy: FaultProxy) -> None:
    """2 MB behind 40 MiB: six requests; each of the two looks at an object asks for its first byte."""
    place.put(KEY, TAR)
    new = bytes(2_000_000)
    kept = await stored(place.bucket, KEY, 0, len(TAR) - 1024)
    proxy.heal()

    info = await place.bucket.upload(KEY, in_pieces([kept, new]))

    assert place.get(KEY) == TAR[:-1024] + new
    assert info.version.endswith("-2")
    assert [told(seen) for seen in proxy.requests].count("copy") == 1
    assert sorted(told(seen) for seen in proxy.requests) == ["begin", "complete", "copy", "get", "get", "part"]
    assert (bytes_sent(proxy), bytes_asked(proxy)) == (len(new), 2)


async def test_few_bytes_between_two_ranges_cost_less_than_a_part(place: S3Place, proxy: FaultProxy) -> None:
    place.put(KEY, TAR)
    first, second = await stored(place.bucket, KEY, 0, 10 * MIB), await stored(place.bucket, KEY, 20 * MIB, 40 * MIB)
    proxy.heal()

    await place.bucket.upload(KEY, in_pieces([first, b"few", second, b"end"]))

    assert place.get(KEY) == TAR[: 10 * MIB] + b"few" + TAR[20 * MIB :] + b"end"
    assert bytes_sent(proxy) == 5 * MIB + len(b"end")
    assert bytes_asked(proxy) == 5 * MIB - len(b"few") + 2


async def test_what_is_small_altogether_is_one_put(place: S3Place, proxy: FaultProxy) -> None:
    place.put(KEY, LARGE)
    kept = await stored(place.bucket, KEY, 0, len(LARGE) - 1024)
    proxy.heal()

    await place.bucket.upload(KEY, in_pieces([kept, b"new"]))

    assert place.get(KEY) == LARGE[:-1024] + b"new"
    assert [told(seen) for seen in proxy.requests] == ["get", "put", "get"]


async def test_a_copy_names_range_and_version_of_its_source(place: S3Place, proxy: FaultProxy) -> None:
    key = "a b/ü+%2F.tar"
    place.put(key, LONG)
    part = await stored(place.bucket, key, 5, 12 * MIB)

    await place.bucket.upload("copy", in_pieces([part]))

    assert place.get("copy") == LONG[5 : 12 * MIB]
    [copy] = [seen for seen in proxy.requests if told(seen) == "copy"]
    assert copy.headers["x-amz-copy-source-range"] == f"bytes=5-{12 * MIB - 1}"
    assert copy.headers["x-amz-copy-source-if-match"] == f'"{part.version}"'
    assert copy.headers[COPY] == f"{place.name}/{PREFIX}/a%20b/%C3%BC%2B%252F.tar"


@pytest.mark.parametrize(
    "fault", [Refuse(503), Refuse(200, body=said("InternalError")), Reset(), Reset(is_heard=True)], ids=repr
)
async def test_a_copy_that_fails_is_asked_for_again(place: S3Place, proxy: FaultProxy, fault: Refuse | Reset) -> None:
    """An error may come behind a status of 200: the service answers before it has copied (UploadPartCopy)."""
    place.put(KEY, LONG)
    whole = await stored(place.bucket, KEY, 0, len(LONG))
    proxy.strike(fault, header=COPY)

    await place.bucket.upload(KEY, in_pieces([whole, b"new"]))

    assert place.get(KEY) == LONG + b"new"
    assert place.keys() == [KEY]
    assert [told(seen) for seen in proxy.requests].count("copy") == 2


async def test_a_copy_that_is_not_answered_in_time_is_asked_for_again(moto: str, proxy: FaultProxy) -> None:
    place = S3Place(moto, through=proxy.url, patience=replace(QUICK, connect_seconds=0.5, read_seconds=1))
    place.put(KEY, LONG)
    whole = await stored(place.bucket, KEY, 0, len(LONG))
    proxy.strike(Delay(60), header=COPY)

    await place.bucket.upload(KEY, in_pieces([whole, b"new"]))

    assert place.get(KEY) == LONG + b"new"
    await place.bucket.close()


@pytest.mark.parametrize("fault", [Refuse(503), Refuse(403, body=said("AccessDenied")), Reset()], ids=repr)
async def test_a_copy_that_keeps_failing_ends_the_upload(
    place: S3Place, proxy: FaultProxy, fault: Refuse | Reset
) -> None:
    place.put(KEY, LONG)
    whole = await stored(place.bucket, KEY, 0, len(LONG))
    proxy.strike(fault, times=1000, header=COPY)

    with pytest.raises(StorageUnavailable) as caught:
        await place.bucket.upload(KEY, in_pieces([whole, b"new"]))

    assert not isinstance(caught.value, ObjectChanged)
    assert told(proxy.requests[-1]) == "abort"
    assert (place.keys(), place.get(KEY)) == ([KEY], LONG)


async def test_a_service_that_drops_the_condition_of_a_copy_is_found_out(place: S3Place, proxy: FaultProxy) -> None:
    """moto is such a service: it copies whatever is there."""
    place.put(KEY, LONG)
    whole = await stored(place.bucket, KEY, 0, len(LONG))
    proxy.strike(Act(lambda: place.put(KEY, LONG[::-1])), header=COPY)

    with pytest.raises(ObjectChanged):
        await place.bucket.upload(KEY, in_pieces([whole]))

    assert (place.keys(), place.get(KEY)) == ([KEY], LONG[::-1])


async def test_a_copy_refused_for_its_condition_is_changed(place: S3Place, proxy: FaultProxy) -> None:
    place.put(KEY, LONG)
    past = StoredRange(KEY, ByteRange(0, len(LONG)), "0" * 32)
    proxy.strike(Refuse(412, body=said("PreconditionFailed")), header=COPY)

    with pytest.raises(ObjectChanged, match=KEY):
        await place.bucket.upload(KEY, in_pieces([past]))

    assert [told(seen) for seen in proxy.requests].count("copy") == 1
    assert (place.keys(), place.get(KEY)) == ([KEY], LONG)


async def test_a_service_that_wants_tags_without_quotes_copies_too(place: S3Place, proxy: FaultProxy) -> None:
    """As for `replace`: who refuses the quoted tag of what is there may want the bare one."""
    place.put(KEY, LONG)
    whole = await stored(place.bucket, KEY, 0, len(LONG))
    proxy.strike(Refuse(412, body=said("PreconditionFailed")), header=COPY)

    await place.bucket.upload(KEY, in_pieces([whole, b"new"]))

    assert place.get(KEY) == LONG + b"new"
    tags = [seen.headers["x-amz-copy-source-if-match"] for seen in proxy.requests if told(seen) == "copy"]
    assert tags == [f'"{whole.version}"', whole.version]
