"""`codweb check --repair-store`: the datastore says what is so of the same bytes, under the lock, and nothing else moves."""

import io
import json
import shutil
import sqlite3
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from app.cli import commands
from storage.bucket.memory import MemoryBucket
from storage.checking import Finding, check_datastore, check_one
from storage.checking.findings import Kind
from storage.checking.repair import ENTRY_KINDS, Repair, repair_series
from storage.cod.lock import LockOwner
from storage.cod.metadata import SeriesMetadata, parse_series_metadata
from storage.errors import SeriesLocked
from storage.keys import SeriesKey, SeriesObject
from storage.writing import writing
from tests.support.stores import DATA, loaded, series_key


async def repaired(bucket: MemoryBucket) -> dict[SeriesKey, Repair]:
    """Mend every series that has findings."""
    by_series: dict[SeriesKey, list[Finding]] = {}
    async for finding in check_datastore(bucket):
        by_series.setdefault(finding.series, []).append(finding)
    return {key: await repair_series(bucket, key, findings) for key, findings in by_series.items()}


async def document(bucket: MemoryBucket, key: SeriesKey) -> SeriesMetadata:
    return parse_series_metadata(bytes((await bucket.read(key.metadata)).data), key)


async def content(bucket: MemoryBucket, key: str) -> bytes:
    return bytes((await bucket.read(key)).data)


async def test_mended_tables_cut_out_the_frames_of_the_oracle(manifest: dict[str, Any]) -> None:
    bucket = await loaded("v2_raw")
    entries = manifest["stores"]["v2_raw"]["instances"]
    wrong = [entry for entry in entries if entry["upstream_offsets"] and not entry["upstream_offsets"]["all_agree"]]

    await repaired(bucket)

    cut = 0
    for entry in wrong:
        key = series_key(entry)
        stored = (await document(bucket, key)).entries[entry["key"]]
        tar = await content(bucket, key.tar)
        for frame, (position, length) in zip(
            entry["oracle_frames"],
            zip(*(stored.stored_table or ((), ())), strict=True),
            strict=bool(stored.stored_table),
        ):
            start = stored.start + position
            assert sha256(tar[start : start + length]).hexdigest() == frame["sha256"]
            cut += 1
    assert cut > 20


async def test_mended_metadata_has_every_attribute_that_pydicom_reads(manifest: dict[str, Any]) -> None:
    bucket = await loaded("v2_raw")
    lossy = {
        found.instance_uid: found.series async for found in check_datastore(bucket) if found.kind is Kind.LOSSY_METADATA
    }

    done = await repaired(bucket)

    assert lossy
    for uid, key in lossy.items():
        assert uid in done[key].corrected
        entry = (await document(bucket, key)).entries[str(uid)]
        tar = await content(bucket, key.tar)
        data_set = dcmread(io.BytesIO(tar[entry.start : entry.stop]), force=True)
        assert {f"{int(tag):08X}" for tag in data_set.keys() if tag.element} <= json.loads(
            entry.attributes_json()
        ).keys()


async def test_nothing_that_can_be_mended_is_found_again_and_no_byte_of_a_tar_changes() -> None:
    bucket = await loaded("v2_raw")
    tars = {
        info.key: await content(bucket, info.key) async for info in bucket.list("studies/") if info.key.endswith(".tar")
    }

    done = await repaired(bucket)

    left = {found.instance_uid async for found in check_datastore(bucket) if found.kind in ENTRY_KINDS}
    assert left == {
        uid for uid in left if any(str(uid) in sentence for repair in done.values() for sentence in repair.left)
    }
    assert any(repair.corrected for repair in done.values())
    assert tars == {key: await content(bucket, key) for key in tars}
    assert not [info.key async for info in bucket.list("studies/") if info.key.endswith(".gradient.lock")]


@pytest.mark.parametrize("store", ["quirk_preamble", "quirk_preamble_append"])
async def test_what_a_gap_hid_is_listed_by_tar_and_bit_for_bit(store: str, manifest: dict[str, Any]) -> None:
    bucket = await loaded(store)

    await repaired(bucket)

    for entry in manifest["stores"][store]["instances"]:
        key = series_key(entry)
        with tarfile.open(fileobj=io.BytesIO(await content(bucket, key.tar))) as tar:
            file = tar.extractfile(f"instances/{entry['key']}.dcm")
            assert file is not None
            assert sha256(file.read()).hexdigest() == entry["stored_sha256"]
        stored = (await document(bucket, key)).entries[entry["key"]]
        found = (await content(bucket, key.tar))[stored.start : stored.stop]
        assert sha256(found).hexdigest() == entry["stored_sha256"]
        assert Kind.HIDDEN_MEMBER not in {finding.kind async for finding in check_one(bucket, key)}


async def test_a_missing_index_is_written_and_lists_every_member(manifest: dict[str, Any]) -> None:
    bucket = await loaded("append")
    entries = manifest["stores"]["append"]["instances"]
    key = series_key(entries[0])
    await bucket.delete(key.object_key(SeriesObject.INDEX))

    await repaired(bucket)

    database = sqlite3.connect(":memory:")
    database.deserialize(await content(bucket, key.object_key(SeriesObject.INDEX)))
    rows = database.execute("SELECT name, offset, size FROM files WHERE path = '/instances'").fetchall()
    assert sorted(rows) == sorted(
        (f"{each['key']}.dcm", each["headers"]["start_byte"], each["size"]) for each in entries
    )


async def test_what_is_torn_stays_as_it_is() -> None:
    bucket = await loaded("quirk_double_append_existing")
    before = {info.key: await content(bucket, info.key) async for info in bucket.list("studies/")}
    torn = [found async for found in check_datastore(bucket) if found.kind is Kind.TORN]

    claimed = [Finding(found.series, Kind.WRONG_TABLE, "", found.instance_uid) for found in torn]
    repair = await repair_series(bucket, torn[0].series, claimed)

    assert repair.corrected == ()
    assert all("not those of its entry" in sentence for sentence in repair.left)
    assert before == {info.key: await content(bucket, info.key) async for info in bucket.list("studies/")}


async def test_deidentified_series_are_never_rewritten() -> None:
    bucket = await loaded("deid")
    before = {info.key: await content(bucket, info.key) async for info in bucket.list("studies/")}

    done = await repaired(bucket)

    assert all("de-identified" in repair.left[0] for repair in done.values())
    assert before == {info.key: await content(bucket, info.key) async for info in bucket.list("studies/")}


async def test_a_series_that_somebody_writes_to_is_not_mended(manifest: dict[str, Any]) -> None:
    bucket = await loaded("append")
    key = series_key(manifest["stores"]["append"]["instances"][0])

    async with writing(bucket, key, owner="another"):
        with pytest.raises(SeriesLocked, match=f"another.*process {LockOwner.this_process().pid}"):
            await repair_series(bucket, key, [Finding(key, Kind.MISSING_INDEX, "")])


def test_the_command_mends_and_then_finds_nothing(tmp_path: Path) -> None:
    store, state = tmp_path / "store", tmp_path / "state"
    shutil.copytree(DATA / "cod" / "quirk_preamble" / "dicomweb", store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    runner = CliRunner()

    reading = runner.invoke(commands, ["check", str(store), "--repair", "--state", str(state), "--json"])
    untouched = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    mending = runner.invoke(commands, ["check", str(store), "--repair-store", "--state", str(state), "--json"])
    again = runner.invoke(commands, ["check", str(store), "--state", str(state), "--json"])

    assert reading.exit_code == 1
    assert untouched == before
    report = json.loads(mending.stdout)
    assert all(each["mended"] for each in report["repairs"])
    assert report["indexed"]
    kinds = {found["kind"] for found in json.loads(again.stdout)["findings"]}
    assert not kinds & {kind.value for kind in (*ENTRY_KINDS, Kind.HIDDEN_MEMBER, Kind.MISSING_INDEX)}


def test_a_series_in_which_nothing_could_be_mended_is_not_called_mended(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(DATA / "cod" / "deid" / "dicomweb", store)
    for index in store.rglob("index.sqlite"):
        index.unlink()

    done = CliRunner().invoke(
        commands, ["check", str(store), "--repair-store", "--state", str(tmp_path / "state"), "--json"]
    )

    report = json.loads(done.stdout)
    assert report["repairs"]
    assert not any(each["mended"] for each in report["repairs"])
    assert done.exit_code == 1
