"""The same face on S3: the datastore, the sources, and the dependencies all lie in buckets."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from storage import BucketOptions, Fate, NewFile, S3Options, open_series
from storage.errors import InstanceUnreadable
from tests.library.reading import SERIES, SLICES, STUDY, UIDS, changed, checksum, other_header
from tests.support.moto_server import moto, s3_credentials
from tests.support.s3_place import S3Place

pytestmark = pytest.mark.long

__all__ = ["moto", "s3_credentials"]


@pytest.fixture
def place(moto: str, s3_credentials: None) -> S3Place:
    return S3Place(moto)


def test_series_goes_from_bucket_to_bucket_and_its_sources_go_when_it_is_safe(place: S3Place, tmp_path: Path) -> None:
    large = changed(SLICES[2], EncapsulatedDocument=bytes(6 << 20))
    files = {"raw/1": SLICES[0], "raw/2": SLICES[1], "raw/3": large, "raw/stranger": other_header(SLICES[0])}
    for key, data in files.items():
        place.put(key, data)
    (tmp_path / "4.dcm").write_bytes(SLICES[3])
    base = f"s3://{place.name}/data/store"
    offered = [NewFile(f"{base}/{key}", dependencies=[f"{base}/{key}"]) for key in files]
    options = BucketOptions(s3=S3Options(endpoint=place.options.s3.endpoint))

    with open_series(f"{base}/dicomweb", STUDY, SERIES, mode="a", options=options) as series:
        result = series.append([*offered, f"{base}/raw/absent", tmp_path / "4.dcm"])
        series.commit()
        report = series.delete_dependencies(dry_run=False)

    stem = f"dicomweb/studies/{STUDY}/series/{SERIES}"
    expected = dict(zip(UIDS[:4], [*SLICES[:2], large, SLICES[3]], strict=True))
    assert [len(part) for part in (result.new, result.conflict)] == [4, 1]
    assert [error.source for error in result.errors] == [f"{base}/raw/absent"]
    assert "nothing is stored there" in result.errors[0].reason
    with tarfile.open(fileobj=io.BytesIO(place.get(f"{stem}.tar") or b"")) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == {  # type: ignore[union-attr]
            f"instances/{uid}.dcm": data for uid, data in expected.items()
        }
    entries = json.loads(gzip.decompress(place.get(f"{stem}/metadata.json") or b""))["cod"]["instances"]
    assert {uid: entry["crc32c"] for uid, entry in entries.items()} == {u: checksum(d) for u, d in expected.items()}
    assert entries[UIDS[0]]["original_path"] == f"{base}/raw/1"
    assert entries[UIDS[0]]["diff_hash_dupe_paths"] == [f"{base}/raw/stranger"]
    assert set(report.of(Fate.DELETED)) == {f"{base}/raw/{number}" for number in (1, 2, 3)}
    assert [key for key in place.keys() if key.startswith("raw/")] == ["raw/stranger"]
    assert f"{stem}/.gradient.lock" not in place.keys()


def test_reader_checks_a_series_in_a_bucket(place: S3Place) -> None:
    base = f"s3://{place.name}/data/store"
    with open_series(base, STUDY, SERIES, mode="w", options=place.options) as series:
        series.append(SLICES)

    with open_series(base, STUDY, SERIES, options=place.options) as series:
        assert series.check() == ()
        assert [series.read(uid) for uid in UIDS] == SLICES


def test_folder_of_a_bucket_is_taken_object_by_object(place: S3Place, tmp_path: Path) -> None:
    for number, data in enumerate(SLICES[:3]):
        place.put(f"raw/{number}", data)

    with open_series(tmp_path, STUDY, SERIES, mode="w", options=place.options) as series:
        assert len(series.append([f"s3://{place.name}/data/store/raw/"]).new) == 3
        series.commit()
        assert [series.read(uid) for uid in UIDS[:3]] == SLICES[:3]


def test_object_that_changes_before_the_commit_leaves_nothing_behind(place: S3Place, tmp_path: Path) -> None:
    place.put("raw/1", SLICES[0])

    with pytest.raises(InstanceUnreadable):
        with open_series(tmp_path, STUDY, SERIES, mode="w", options=place.options) as series:
            series.append([f"s3://{place.name}/data/store/raw/1"])
            place.put("raw/1", SLICES[1])

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
