"""`codweb check` on the fixture stores: what is known to be wrong with each is found, and nothing else."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import commands
from storage.bucket import Bucket, open_bucket
from storage.checking import Finding, Severity, check_datastore
from storage.checking.findings import ADVICE, SEVERITIES, Kind
from tests.support.stores import DATA, loaded, series_key

CLEAN = ["append", "append_plainjson", "custom_fields", "v1_upgraded"]


async def findings_of(bucket: Bucket, *, all_bytes: bool = False) -> list[Finding]:
    return [finding async for finding in check_datastore(bucket, all_bytes=all_bytes)]


def folder_of(store: str) -> Path:
    return DATA / "cod" / store / "dicomweb"


@pytest.mark.parametrize("store", CLEAN)
async def test_a_sound_store_has_no_findings(store: str) -> None:
    assert await findings_of(open_bucket(folder_of(store)), all_bytes=True) == []


async def test_torn_entries_are_errors_and_name_the_instance(manifest: dict[str, Any]) -> None:
    for store in ("lock_torn", "quirk_double_append_existing"):
        torn = {
            entry["key"]
            for entry in manifest["stores"][store]["instances"]
            if any("crc" in p for p in entry["problems"])
        }

        found = await findings_of(open_bucket(folder_of(store)))

        assert {finding.instance_uid for finding in found if finding.kind is Kind.TORN} == torn


async def test_checksums_are_compared_only_when_all_bytes_are_asked_for() -> None:
    bucket = open_bucket(folder_of("lock_torn"))

    assert Kind.WRONG_CHECKSUM not in {finding.kind for finding in await findings_of(bucket)}
    assert Kind.WRONG_CHECKSUM in {finding.kind for finding in await findings_of(bucket, all_bytes=True)}


async def test_the_tables_that_the_oracle_finds_wrong_are_found(manifest: dict[str, Any]) -> None:
    for store in ("v2_raw", "v1", "v2_default", "thumbs", "deid"):
        entries = manifest["stores"][store]["instances"]
        wrong = {
            entry["key"]
            for entry in entries
            if entry["upstream_offsets"] is not None and not entry["upstream_offsets"]["all_agree"]
        }

        found = await findings_of(open_bucket(folder_of(store)))

        assert {finding.instance_uid for finding in found if finding.kind is Kind.WRONG_TABLE} == wrong, store


async def test_attributes_that_the_writer_dropped_are_named(manifest: dict[str, Any]) -> None:
    lossy = {
        entry["key"]: entry["tags_missing_from_json"]
        for entry in manifest["stores"]["v2_raw"]["instances"]
        if entry.get("tags_missing_from_json")
    }

    found = [f for f in await findings_of(open_bucket(folder_of("v2_raw"))) if f.kind is Kind.LOSSY_METADATA]

    for finding in found:
        assert finding.instance_uid in lossy
        assert all(tag in finding.detail for tag in lossy[finding.instance_uid] if not tag.endswith("0000"))


@pytest.mark.parametrize(
    ("store", "kind"),
    [
        ("lock", Kind.LOCK),
        ("error_log", Kind.ERROR_LOG),
        ("quirk_preamble", Kind.ORPHAN_MEMBER),
        ("quirk_preamble", Kind.HIDDEN_MEMBER),
        ("v2_raw_alt5", Kind.EMPTY),
    ],
)
async def test_what_a_store_is_named_for_is_found(store: str, kind: Kind) -> None:
    assert kind in {finding.kind for finding in await findings_of(open_bucket(folder_of(store)))}


async def test_missing_halves_of_a_series_are_errors(manifest: dict[str, Any]) -> None:
    key = series_key(manifest["stores"]["append"]["instances"][0])
    without_tar, without_metadata, without_index = [await loaded("append") for _ in range(3)]
    await without_tar.delete(key.tar)
    await without_metadata.delete(key.metadata)
    await without_index.delete(f"{key.stem}/index.sqlite")

    assert [finding.kind for finding in await findings_of(without_tar)] == [Kind.MISSING_TAR]
    assert [finding.kind for finding in await findings_of(without_metadata)] == [Kind.MISSING_METADATA]
    assert [finding.kind for finding in await findings_of(without_index)] == [Kind.MISSING_INDEX]


async def test_unreadable_metadata_is_an_error_and_the_check_goes_on(manifest: dict[str, Any]) -> None:
    bucket = await loaded("v2_raw")
    key = series_key(manifest["stores"]["v2_raw"]["instances"][0])
    await bucket.write(key.metadata, b"\x1f\x8b broken")

    found = await findings_of(bucket)

    assert [finding.series for finding in found if finding.kind is Kind.UNREADABLE_METADATA] == [key]
    assert any(finding.series != key for finding in found)


async def test_a_uri_that_names_another_place_is_a_note(manifest: dict[str, Any]) -> None:
    bucket = await loaded("append")
    key = series_key(manifest["stores"]["append"]["instances"][0])
    document = json.loads(gzip.decompress(bytes((await bucket.read(key.metadata)).data)))
    for entry in document["cod"]["instances"].values():
        entry["uri"] = entry["uri"].replace(key.series_uid, "1.2.3.4")
    await bucket.write(key.metadata, gzip.compress(json.dumps(document).encode()))

    found = await findings_of(bucket)

    assert {finding.kind for finding in found} == {Kind.FOREIGN_URI}
    assert {finding.severity for finding in found} == {Severity.NOTE}


def test_every_kind_has_a_severity_and_an_advice() -> None:
    assert set(SEVERITIES) == set(ADVICE) == set(Kind)


@pytest.mark.parametrize(("store", "code"), [("append", 0), ("lock_torn", 1), ("v2_raw_alt6", 0), ("missing", 2)])
def test_the_exit_code_says_whether_anything_is_wrong(store: str, code: int) -> None:
    result = CliRunner().invoke(commands, ["check", str(folder_of(store))])

    assert result.exit_code == code, result.output


def test_the_json_report_counts_and_advises() -> None:
    result = CliRunner().invoke(commands, ["check", str(folder_of("lock_torn")), "--json"])

    report = json.loads(result.stdout)
    assert report["series"] == 1
    assert Counter(finding["severity"] for finding in report["findings"])["error"] == 3
    assert all(finding["advice"] for finding in report["findings"])


def test_one_study_can_be_checked_alone(manifest: dict[str, Any]) -> None:
    key = series_key(manifest["stores"]["v2_raw"]["instances"][0])

    result = CliRunner().invoke(commands, ["check", str(folder_of("v2_raw")), "--study", key.study_uid, "--json"])

    assert {finding["study_uid"] for finding in json.loads(result.stdout)["findings"]} <= {key.study_uid}
