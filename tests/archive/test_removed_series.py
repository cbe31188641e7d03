"""A series that was removed after it was listed is absent; the rest of its study is not, and what cannot be read neither."""

from pathlib import Path
from typing import Any

import pytest

from storage.errors import StorageUnavailable
from storage.keys import SeriesKey
from tests.support.buckets import FailingBucket
from tests.support.multipart import parts_of
from tests.support.server import serving
from tests.support.stores import loaded, series_key


def study_of_several(manifest: dict[str, Any]) -> list[SeriesKey]:
    """The series of a study that has more than one, and files in each."""
    keys = {series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]}
    studies = [[key for key in sorted(keys) if key.study_uid == study] for study in {key.study_uid for key in keys}]
    return max(studies, key=len)


@pytest.mark.parametrize("resource", ["/metadata", ""])
async def test_a_study_is_answered_without_a_series_that_was_removed(
    resource: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    bucket = await loaded("v2_raw")
    removed, *others = study_of_several(manifest)
    async with serving(bucket, tmp_path) as client:
        await bucket.delete(removed.metadata)
        await bucket.delete(removed.tar)

        response = await client.get(f"/dicomweb/studies/{removed.study_uid}{resource}")

    expected = [entry["key"] for entry in manifest["stores"]["v2_raw"]["instances"] if series_key(entry) in set(others)]
    assert response.status_code == 200
    if resource:
        assert sorted(item["00080018"]["Value"][0] for item in response.json()) == sorted(expected)
    else:
        assert len(parts_of(response)) == len(expected)


@pytest.mark.parametrize("resource", ["/metadata", ""])
async def test_a_study_whose_last_series_was_removed_is_404(
    resource: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    bucket = await loaded("append")
    key = series_key(manifest["stores"]["append"]["instances"][0])
    async with serving(bucket, tmp_path) as client:
        await bucket.delete(key.metadata)

        response = await client.get(f"/dicomweb/studies/{key.study_uid}{resource}")

    assert response.status_code == 404


@pytest.mark.parametrize("which", ["one series", "all series"])
@pytest.mark.parametrize("resource", ["/metadata", ""])
async def test_a_study_that_the_catalogue_lacks_is_503_while_its_series_cannot_be_read(
    resource: str, which: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    """Neither 404, nor 200 without them; and when they can be read, all are there."""
    failing = FailingBucket(await loaded("v2_raw"))
    keys = study_of_several(manifest)
    unread = {key.metadata for key in (keys[:1] if which == "one series" else keys)}
    async with serving(failing, tmp_path, wait=False) as client:
        failing.fail("read", unread.__contains__, StorageUnavailable("throttled"))
        first = await client.get(f"/dicomweb/studies/{keys[0].study_uid}{resource}")
        found = await client.get(f"/dicomweb/studies?StudyInstanceUID={keys[0].study_uid}")
        failing.heal()
        second = await client.get(f"/dicomweb/studies/{keys[0].study_uid}{resource}")

    expected = [entry["key"] for entry in manifest["stores"]["v2_raw"]["instances"] if series_key(entry) in set(keys)]
    assert (first.status_code, found.status_code) == (503, 503)
    assert "retry-after" in first.headers and "retry-after" in found.headers
    assert second.status_code == 200
    if resource:
        assert sorted(item["00080018"]["Value"][0] for item in second.json()) == sorted(expected)
    else:
        assert len(parts_of(second)) == len(expected)


async def test_frames_of_a_series_whose_tar_is_gone_are_never_404(manifest: dict[str, Any], tmp_path: Path) -> None:
    entry = next(each for each in manifest["stores"]["append"]["instances"] if each.get("oracle_frames"))
    bucket, key = await loaded("append"), series_key(entry)
    path = f"/dicomweb/{key.stem}/instances/{entry['key']}/frames/1"
    async with serving(bucket, tmp_path) as client:
        assert (await client.get(path)).status_code == 200
        await bucket.delete(key.tar)

        answers = [await client.get(path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert "there is no tar" in answers[0].json()["detail"]
