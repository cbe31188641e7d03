"""Each continues what the other began, and neither damages it."""

from pathlib import Path

import pytest

from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.ingest.reading import CT, P10, read_quietly
from tests.published.library import Library
from tests.published.place import Place, by_uid, flaws, key_of_file, stored_by_codweb
from tests.support.gcs_fake import GcsFake

pytestmark = pytest.mark.long

ADDED_TO_V1 = [
    "693_J2KI.dcm",
    "SC_rgb_2frame.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "syn_charset_utf8.dcm",
    "syn_ct_5.dcm",
    "syn_j2k_eot.dcm",
    "syn_overlong_ds.dcm",
]
"""Files whose series is in the store of the v1.0 writer and whose instance is not."""


async def test_the_library_appends_to_a_series_of_codweb(place: Place, library: Library, tmp_path: Path) -> None:
    key = await stored_by_codweb(place.bucket, *CT[:3])

    appended = library.append(place.url, key, [CT[4], CT[3]])

    assert (len(appended.new), appended.errors) == (2, [])
    assert await place.read(key, tmp_path) == by_uid(*CT[:5])
    assert await flaws(place.bucket) == []


async def test_what_the_library_transcodes_while_it_appends_is_read_as_it_stored_it(
    place: Place, library: Library, tmp_path: Path
) -> None:
    key = await stored_by_codweb(place.bucket, *CT[:3])

    appended = library.append(place.url, key, [CT[3]], compress=True)

    (uid,) = appended.new
    ours = await place.read(key, tmp_path)
    assert {**ours, uid: b""} == {**by_uid(*CT[:3]), uid: b""}
    assert read_quietly(ours[uid]).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    assert ours == {each: instance.data for each, instance in library.read(place.url, key).instances.items()}
    assert await flaws(place.bucket) == []


async def test_the_library_knows_an_instance_of_codweb_as_the_same(place: Place, library: Library) -> None:
    """As long as it is not told to transcode before it compares (its default, by a bug of its own)."""
    key = await stored_by_codweb(place.bucket, *CT[:2])
    before = place.versions()

    appended = library.append(place.url, key, [CT[0], P10 / "syn_ct_1_diffhash.dcm"])

    assert (appended.new, len(appended.same), len(appended.conflict)) == ([], 1, 1)
    assert place.versions() == before


@pytest.mark.parametrize("compress", [False, True])
async def test_codweb_appends_to_a_series_of_the_library(
    compress: bool, place: Place, library: Library, tmp_path: Path
) -> None:
    key = key_of_file(CT[0])
    assert library.append(place.url, key, CT[:3], mode="w", compress=compress).errors == []
    theirs = {uid: instance.data for uid, instance in library.read(place.url, key).instances.items()}

    assert await stored_by_codweb(place.bucket, *CT[3:]) == key

    series = library.read(place.url, key)
    assert (series.unsound, series.unlisted, series.uses_index) == ("", "", True)
    read = {uid: instance.data for uid, instance in series.instances.items()}
    assert read == {**theirs, **by_uid(*CT[3:])}
    assert await place.read(key, tmp_path) == read
    assert await flaws(place.bucket) == []


async def test_each_appends_to_what_the_other_appended(place: Place, library: Library, tmp_path: Path) -> None:
    key = await stored_by_codweb(place.bucket, CT[0])
    for turn, path in enumerate(CT[1:]):
        if turn % 2:
            await stored_by_codweb(place.bucket, path)
        else:
            assert library.append(place.url, key, [path]).errors == []

    series = library.read(place.url, key)

    assert series.unsound == ""
    assert {uid: instance.data for uid, instance in series.instances.items()} == by_uid(*CT)
    assert await place.read(key, tmp_path) == by_uid(*CT)
    assert await flaws(place.bucket) == []


async def test_codweb_knows_an_instance_of_the_library_as_the_same(place: Place, library: Library) -> None:
    key = key_of_file(CT[0])
    library.append(place.url, key, CT[:2], mode="w")
    before = place.versions()

    report = await ingest(CT[:2], place.bucket)

    assert (report.new, len(report.same), report.conflict) == ([], 2, [])
    assert place.versions() == before


async def test_fields_that_a_user_of_the_library_set_stay(place: Place, library: Library) -> None:
    place.put_fixture("custom_fields")
    (metadata,) = (key for key in place.versions() if key.endswith("metadata.json"))
    _, study_uid, _, series_uid, _ = metadata.split("/")
    key = SeriesKey(study_uid, series_uid)
    before = library.read(place.url, key)
    (free,) = (path for path in CT[5:] if key_of_file(path) == key)

    await stored_by_codweb(place.bucket, free)

    after = library.read(place.url, key)
    assert before.fields
    assert after.fields == before.fields
    assert len(after.instances) == len(before.instances) + 1


@pytest.fixture
def v1(fake: GcsFake) -> Place:
    """A store of the real v1.0 writer, at the address that its entries name."""
    fake.objects.drop_bucket("cod")
    place = Place(fake, name="cod", prefix="v1/dicomweb")
    place.put_fixture("v1")
    return place


@pytest.mark.parametrize("name", ADDED_TO_V1)
async def test_codweb_appends_to_a_series_of_the_first_version(
    name: str, v1: Place, library: Library, tmp_path: Path
) -> None:
    key = key_of_file(P10 / name)
    before = {uid: instance.data for uid, instance in library.read(v1.url, key).instances.items()}

    assert await stored_by_codweb(v1.bucket, P10 / name) == key

    series = library.read(v1.url, key)
    assert (series.unsound, series.unlisted, series.uses_index) == ("", "", True)
    after = {uid: instance.data for uid, instance in series.instances.items()}
    assert after == {**before, **by_uid(P10 / name)}
    assert await v1.read(key, tmp_path) == after
    await v1.bucket.close()
