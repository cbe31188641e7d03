"""A series that was removed after it was listed is absent; the rest of its study is not."""

from pathlib import Path
from typing import Any

import pytest

from storage.keys import SeriesKey
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
