"""Every store, instance and frame of the fixtures, against the oracle of the manifest. No wrong byte anywhere."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from storage.bucket import open_bucket
from storage.keys import SeriesKey
from tests.support.multipart import parts_of
from tests.support.server import Client, serving

STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'

TORN = "crc32c of tar[start:start+size] differs from metadata"

IN_DOUBT = {
    # The Basic Offset Table lists 3 frames, NumberOfFrames says 4 and there are 4 fragments: which fragments make frame 3
    # is told differently by the table (two, which is what the oracle's reader takes) and by the count (one).
    ("syn_j2k_bot_short.dcm", 2): "500",
}


BYTES_IN_WORDS = "SC_rgb_small_odd_big_endian.dcm"
"""8-bit samples in big-endian OW: each pair of bytes is stored swapped (PS3.5 §8.1.2, annex A.3). The manifest's frame
hash is of the stored bytes and has no `sha256_le` beside it; its hash of the decoded samples is what must be sent."""


def oracle_hash(entry: dict[str, Any], frame: dict[str, Any]) -> str:
    """The hash of the bytes that must be sent: little-endian where the store is big-endian."""
    if entry["source"] == BYTES_IN_WORDS:
        decoded: str = entry["decoded_raw_sha256"][frame["index"]]
        return decoded
    expected: str = frame.get("sha256_le", frame["sha256"])
    return expected


def instances_of(manifest: dict[str, Any], store: str) -> list[dict[str, Any]]:
    """What the oracle says of a store; `append_plainjson` is a copy of `append` with metadata.json unpacked."""
    entries: list[dict[str, Any]] = manifest["stores"][store.removesuffix("_plainjson")]["instances"]
    return entries


def path_of(entry: dict[str, Any]) -> str:
    series = entry["series_key"].split("/dicomweb/", 1)[1]
    return f"/dicomweb/{series}/instances/{entry['key']}"


def is_torn(entry: dict[str, Any]) -> bool:
    return TORN in entry["problems"]


async def check_frames(client: Client, entry: dict[str, Any]) -> Counter[str]:
    """Ask for each frame of the oracle alone; returns how many were served and refused."""
    outcome: Counter[str] = Counter()
    for frame in entry["oracle_frames"] or []:
        response = await client.get(f"{path_of(entry)}/frames/{frame['index'] + 1}", headers={"accept": STORED})
        if (entry["source"], frame["index"]) in IN_DOUBT:
            assert response.status_code == 500, (entry["source"], frame["index"])
            assert "disagree" in response.json()["detail"]
            outcome["in doubt"] += 1
            continue
        assert response.status_code == 200, (entry["source"], frame["index"], response.text)
        [part] = parts_of(response)
        assert hashlib.sha256(part.body).hexdigest() == oracle_hash(entry, frame), entry["source"]
        outcome["served"] += 1
    return outcome


@pytest.mark.parametrize("order", ["frames first, on a quick index", "after a deep build"])
async def test_every_frame_and_file_of_every_store_is_the_oracles(
    data_folder: Path, manifest: dict[str, Any], store_names: list[str], tmp_path: Path, order: str
) -> None:
    outcome: Counter[str] = Counter()
    for store in store_names:
        bucket = open_bucket(data_folder / "cod" / store / "dicomweb")
        async with serving(bucket, tmp_path / store) as client:
            for entry in instances_of(manifest, store):
                series_path = path_of(entry).rsplit("/instances/", 1)[0]
                if order == "after a deep build":
                    study_uid, series_uid = series_path.removeprefix("/dicomweb/studies/").split("/series/")
                    index = await client.archive.shelf.get(SeriesKey(study_uid, series_uid), depth="deep")
                    assert index.header.depth == "deep"
                if is_torn(entry):
                    for path in ("/frames/1", ""):
                        response = await client.get(path_of(entry) + path)
                        assert response.status_code in (500, 503), (store, entry["key"], path)
                        assert entry["key"] in response.json()["detail"]
                    outcome["torn"] += 1
                    continue
                outcome += await check_frames(client, entry)
                response = await client.get(path_of(entry), headers={"accept": "application/dicom"})
                if store == "deid":
                    assert response.status_code == 406
                    outcome["withheld"] += 1
                else:
                    assert response.status_code == 200, (store, entry["key"], response.text[:300])
                    assert hashlib.sha256(response.content).hexdigest() == entry["stored_sha256"]
                    outcome["files"] += 1

    expected_frames = sum(
        len(entry["oracle_frames"] or [])
        for store in store_names
        for entry in instances_of(manifest, store)
        if not is_torn(entry)
    )
    assert outcome["served"] + outcome["in doubt"] == expected_frames
    assert outcome["torn"] == 4
    assert outcome["files"] + outcome["withheld"] + outcome["torn"] == sum(
        len(instances_of(manifest, store)) for store in store_names
    )


@pytest.mark.parametrize("store", ["lock_torn", "quirk_double_append_existing"])
async def test_the_very_first_request_on_a_torn_series_gets_no_wrong_frame(
    data_folder: Path, manifest: dict[str, Any], tmp_path: Path, store: str
) -> None:
    for number, entry in enumerate(instances_of(manifest, store)):
        bucket = open_bucket(data_folder / "cod" / store / "dicomweb")
        async with serving(bucket, tmp_path / str(number)) as client:
            response = await client.get(f"{path_of(entry)}/frames/1", headers={"accept": STORED})
            if is_torn(entry):
                assert response.status_code == (503 if store == "lock_torn" else 500)
                assert ("retry-after" in response.headers) == (store == "lock_torn")
            else:
                await check_frames(client, entry)
                assert response.status_code == 200


async def test_every_series_of_every_store_answers_metadata_and_searches(
    data_folder: Path, manifest: dict[str, Any], store_names: list[str], tmp_path: Path
) -> None:
    for store in store_names:
        bucket = open_bucket(data_folder / "cod" / store / "dicomweb")
        async with serving(bucket, tmp_path / store) as client:
            entries = instances_of(manifest, store)
            listed = (await client.get("/dicomweb/instances?limit=5000")).json()
            assert sorted(row["00080018"]["Value"][0] for row in listed) == sorted(entry["key"] for entry in entries)
            for series_path in {path_of(entry).rsplit("/instances/", 1)[0] for entry in entries}:
                response = await client.get(series_path + "/metadata")
                assert response.status_code == 200, (store, series_path, response.text[:300])
                found = [attributes["00080018"]["Value"][0] for attributes in response.json()]
                assert sorted(found) == sorted(
                    entry["key"] for entry in entries if path_of(entry).startswith(series_path + "/")
                )
