"""What an answer costs, counted at the bucket: requests and bytes, not time."""

from pathlib import Path
from typing import Any

import pytest

from storage.bucket.memory import MemoryBucket
from tests.support.buckets import RecordingBucket
from tests.support.multipart import parts_of
from tests.support.server import Client, serving
from tests.support.stores import instance_path, loaded, series_key

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
FILE = {"accept": "application/dicom"}

Entry = dict[str, Any]


@pytest.fixture
def entries(manifest: dict[str, Any]) -> list[Entry]:
    """All instances of the store v2_raw: every kind of pixel data there is."""
    found: list[Entry] = manifest["stores"]["v2_raw"]["instances"]
    return found


@pytest.fixture
async def bucket() -> RecordingBucket:
    return RecordingBucket(await loaded("v2_raw"))


def imaged(entries: list[Entry]) -> list[Entry]:
    """Entries whose frames can be addressed by ranges."""
    deflated = "1.2.840.10008.1.2.1.99"
    return [entry for entry in entries if entry["oracle_frames"] and entry["stored_transfer_syntax"] != deflated]


async def first_frame(client: Client, entry: Entry) -> int:
    """Fetch frame 1; returns the bytes of its payload."""
    response = await client.get(f"{instance_path(entry)}/frames/1", headers=STORED)
    assert response.status_code == 200, response.text
    return len(parts_of(response)[0].body)


async def test_a_frame_of_a_proven_instance_costs_one_request_and_its_own_bytes(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    async with serving(bucket, tmp_path, read_ahead="off") as client:
        for entry in imaged(entries):
            await client.archive.shelf.get(series_key(entry), depth="deep")
            bucket.reset()

            length = await first_frame(client, entry)

            assert [request.verb for request in bucket.requests] == ["read"], entry["source"]
            assert bucket.bytes_read <= length + 4096, entry["source"]


async def test_the_first_touch_of_an_unproven_instance_costs_two_requests_and_the_second_one(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    async with serving(bucket, tmp_path, read_ahead="off") as client:
        for entry in imaged(entries):
            index = await client.archive.shelf.get(series_key(entry))
            assert index.header.depth == "quick"
            bucket.reset()

            await first_frame(client, entry)

            assert len(bucket.requests) <= 2, (entry["source"], bucket.requests)
            bucket.reset()
            await first_frame(client, entry)
            assert len(bucket.requests) == 1, entry["source"]


async def test_what_was_found_at_first_touch_is_remembered_by_the_next_process(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    entry = next(entry for entry in entries if entry["source"] == "syn_j2k_bot_3frag.dcm")
    async with serving(bucket, tmp_path) as client:
        await first_frame(client, entry)

    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(series_key(entry))
        bucket.reset()
        await first_frame(client, entry)

    assert len(bucket.requests) == 1


async def test_an_instance_costs_one_request_and_its_own_bytes(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    async with serving(bucket, tmp_path) as client:
        for entry in entries:
            await client.archive.shelf.get(series_key(entry), depth="deep")
            bucket.reset()

            response = await client.get(instance_path(entry), headers=FILE)

            assert response.status_code == 200
            assert [request.verb for request in bucket.requests] == ["read"]
            assert bucket.bytes_read == entry["size"]


async def test_the_files_of_a_series_cost_one_request(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    entry = next(entry for entry in entries if entry["source"] == "syn_ct_1.dcm")
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(series_key(entry), depth="deep")
        bucket.reset()

        response = await client.get(f"/dicomweb/{series_key(entry).stem}")

        assert len(parts_of(response)) == sum(series_key(each) == series_key(entry) for each in entries)
        assert [request.verb for request in bucket.requests] == ["stream"]


async def test_warm_metadata_costs_no_request_at_any_level(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    entry = entries[5]
    paths = [
        f"/dicomweb/studies/{series_key(entry).study_uid}/metadata",
        f"/dicomweb/{series_key(entry).stem}/metadata",
        f"{instance_path(entry)}/metadata",
    ]
    async with serving(bucket, tmp_path) as client:
        for path in paths:
            assert (await client.get(path)).status_code == 200
        bucket.reset()

        for path in paths:
            for coding in ("zstd", "gzip", "identity"):
                assert (await client.get(path, headers={"accept-encoding": coding})).status_code == 200

        assert bucket.requests == []


@pytest.mark.parametrize(
    "path", ["studies", "series", "studies?PatientName=*a*", "series?Modality=CT", "studies/{study}/series"]
)
async def test_searches_for_studies_and_series_cost_no_request(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path, path: str
) -> None:
    async with serving(bucket, tmp_path) as client:
        bucket.reset()

        response = await client.get("/dicomweb/" + path.format(study=series_key(entries[0]).study_uid))

        assert response.status_code == 200
        assert bucket.requests == []


async def test_a_second_look_over_an_unchanged_datastore_reads_nothing_but_the_listing(
    bucket: RecordingBucket, tmp_path: Path
) -> None:
    async with serving(bucket, tmp_path) as client:
        bucket.reset()

        report = await client.archive.sync()

        assert {request.verb for request in bucket.requests} == {"list"}
        assert report.added == report.changed == 0


async def test_neighbouring_frames_cost_one_request(
    bucket: RecordingBucket, entries: list[Entry], tmp_path: Path
) -> None:
    entry = next(entry for entry in entries if entry["source"] == "syn_j2k_bot_1frag.dcm")
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(series_key(entry), depth="deep")
        bucket.reset()

        response = await client.get(f"{instance_path(entry)}/frames/2,1,3,3", headers=STORED)

        bodies = [part.body for part in parts_of(response)]
        assert bodies[2] == bodies[3]
        assert [len(body) for body in bodies] == [entry["oracle_frames"][index]["length"] for index in (1, 0, 2, 2)]
        assert len(bucket.requests) == 1


def test_counting_is_of_a_bucket_that_is_not_a_folder() -> None:
    """A folder is asked for its version on every use; counting that would prove nothing of a cloud."""
    assert not MemoryBucket("x").cheap_head
