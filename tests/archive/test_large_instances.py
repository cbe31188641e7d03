"""An instance with very many per-frame items: built in another process, in bounded memory, while its frames are served."""

import asyncio
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from storage.archive import Archive
from storage.bucket import Bucket, open_bucket
from storage.metadata_modes import Extrapolation
from tests.support.enhanced import INSTANCE_UID, KEY, enhanced_store

ROOT = "http://127.0.0.1:8042/dicomweb"
FRAMES = 4_000
MANY_FRAMES = 20_000

BUILD_AND_WEIGH = """
import asyncio, resource, sys
from pathlib import Path
from storage.bucket import open_bucket
from storage.indexing.indexer import Indexer
from storage.state import StateFolder
from tests.support.enhanced import KEY
bucket = open_bucket(sys.argv[1])
asyncio.run(Indexer(bucket, StateFolder(Path(sys.argv[2]), bucket.url), root="http://x/dicomweb").build(KEY, "deep"))
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


async def stored(folder: Path, frames: int) -> Bucket:
    bucket = open_bucket(folder, create=True)
    for key, data in enhanced_store(frames).items():
        await bucket.write(key, data)
    return bucket


@pytest.fixture
async def bucket(tmp_path: Path) -> Bucket:
    return await stored(tmp_path / "datastore", FRAMES)


async def test_frames_are_served_while_the_metadata_of_the_instance_is_built(bucket: Bucket, tmp_path: Path) -> None:
    archive = Archive(bucket, tmp_path / "state", root=ROOT, rules=Extrapolation((), ()), deepen="off")
    try:
        building = asyncio.create_task(archive.metadata.of_series([KEY], mode="full", coding="identity", root=ROOT))
        served = 0
        while not building.done():
            frame_index = served * 7 % FRAMES
            frames = await archive.frames.open(KEY, INSTANCE_UID)
            [payload] = await frames.read([frame_index])
            assert bytes(payload) == struct.pack("<H", frame_index) * 4
            served += 1
            await asyncio.sleep(0.01)
        body = await building
    finally:
        await archive.close()

    assert served > 10
    assert body.is_deep
    [attributes] = json.loads(b"".join(bytes(part) for part in body.parts))
    items = attributes["52009230"]["Value"]
    assert len(items) == FRAMES
    assert items[-1]["00209113"]["Value"][0]["00200032"]["Value"] == [-100.5, -90.25, (FRAMES - 1) / 2]


@pytest.mark.long
async def test_the_memory_of_a_build_does_not_grow_with_the_number_of_items(tmp_path: Path) -> None:
    weights = []
    for frames in (1, MANY_FRAMES):
        folder = tmp_path / f"datastore-{frames}"
        await stored(folder, frames)
        command = [sys.executable, "-c", BUILD_AND_WEIGH, str(folder), str(tmp_path / "state")]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, text=True)
        weights.append(int(done.stdout))

    # the header itself (2 MB here) and chunks are held; the JSON (4 MB) and its objects (several times that) are not
    assert weights[1] - weights[0] < 30 << 20
