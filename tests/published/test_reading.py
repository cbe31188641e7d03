"""The published library reads what codweb wrote: every series, every instance, every byte."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.conftest import DATA
from tests.ingest.reading import NAMES, P10, REFUSED, made
from tests.published.library import Library, LibraryRefused, TheirSeries
from tests.published.place import PREFIX, Place, complaints, open_anonymously
from tests.support.gcs_fake import GcsFake

pytestmark = pytest.mark.long

ORACLE: dict[str, dict[str, Any]] = json.loads((DATA / "manifest.json").read_bytes())["p10"]
STORED = [name for name in NAMES if name not in REFUSED]

UNOPENED = dict.fromkeys(
    ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_truncated.dcm"),
    "AssertionError: File is not a valid DICOM",
)
"""The library takes a P10 whose preamble looks like a TIFF for no DICOM. Its bytes pass its integrity check all the same."""

UNLISTED = {
    "syn_empty_instance_number_1.dcm": "KeyError: 'Value'",
    "syn_empty_instance_number_2.dcm": "KeyError: 'Value'",
}
"""The library cannot sort instances whose InstanceNumber is empty; it has them all the same."""


def series_of(name: str) -> SeriesKey:
    return SeriesKey(ORACLE[name]["study"], ORACLE[name]["series"])


def sop_of(name: str) -> str:
    return str(ORACLE[name]["sop"])


def in_layers(names: Iterable[str]) -> dict[str, int]:
    """Files that claim one instance go to datastores of their own, in the order of their names."""
    met: Counter[tuple[SeriesKey, str]] = Counter()
    layers = {}
    for name in names:
        layers[name] = met[series_of(name), sop_of(name)]
        met[series_of(name), sop_of(name)] += 1
    return layers


LAYERS = in_layers(STORED)


class Shelves:
    """All files of the corpus, stored by codweb, and the series as the library reads them, each read once."""

    def __init__(self, fake: GcsFake, library: Library) -> None:
        fake.objects.make_bucket("shelves")
        self._fake = fake
        self._library = library
        self._read: dict[tuple[int, SeriesKey], TheirSeries] = {}

    async def fill(self) -> None:
        for layer in range(max(LAYERS.values()) + 1):
            bucket = open_anonymously(self._url(layer), self._fake.endpoint)
            report = await ingest([P10 / name for name in STORED if LAYERS[name] == layer], bucket)
            await bucket.close()
            assert report.is_clean, complaints(report)

    def series_with(self, name: str) -> TheirSeries:
        place = LAYERS[name], series_of(name)
        if place not in self._read:
            self._read[place] = self._library.read(self._url(place[0]), place[1])
        return self._read[place]

    def _url(self, layer: int) -> str:
        return f"gs://shelves/{layer}/{PREFIX}"


@pytest.fixture(scope="module")
def shelves(fake: GcsFake, library: Library) -> Shelves:
    shelves = Shelves(fake, library)
    asyncio.run(shelves.fill())
    return shelves


def test_it_is_the_published_version(library: Library) -> None:
    assert library.version() == "2.2.0"


@pytest.mark.parametrize("name", STORED)
def test_every_series_is_listed_and_passes_the_check_of_the_library(name: str, shelves: Shelves) -> None:
    series = shelves.series_with(name)

    mates = {sop_of(other) for other in STORED if (series_of(other), LAYERS[other]) == (series_of(name), LAYERS[name])}
    assert series.instances.keys() == mates
    assert series.unsound == ""
    assert series.uses_index
    assert series.unlisted == UNLISTED.get(name, "")
    assert series.fields == {}


@pytest.mark.parametrize("name", STORED)
def test_every_instance_comes_back_bit_for_bit(name: str, shelves: Shelves) -> None:
    instance = shelves.series_with(name).instances[sop_of(name)]

    if name in UNOPENED:
        assert instance.unopened.startswith(UNOPENED[name])
    else:
        assert instance.unopened == ""
        assert instance.data == (P10 / name).read_bytes()


@pytest.mark.parametrize("name", STORED)
def test_every_instance_is_described_as_it_is(name: str, shelves: Shelves) -> None:
    oracle = ORACLE[name]

    instance = shelves.series_with(name).instances[sop_of(name)]

    assert (instance.size, instance.crc32c) == (oracle["size"], oracle["crc32c"])
    assert list(instance.uids) == [oracle["study"], oracle["series"], oracle["sop"]]
    assert instance.has_pixeldata == (oracle["pixel_keyword"] == "PixelData")
    assert {"0020000D", "0020000E", "00080018", "00020010"} <= set(instance.tags)


async def test_uids_too_short_for_the_library_are_refused_before_it_meets_them(
    place: Place, library: Library, tmp_path: Path
) -> None:
    path = made(tmp_path / "short.dcm", "1.2.826.0.1.3680043.9", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4")

    report = await ingest([path], place.bucket)

    (complaint,) = complaints(report)
    assert "shorter than the 10 characters" in complaint
    with pytest.raises(LibraryRefused, match="AssertionError: Study UID must be 10 characters long"):
        library.read(place.url, SeriesKey("1.2.3", "1.2.4"))


def test_the_corpus_has_files_that_share_an_instance() -> None:
    """Or the datastores apart would be for nothing, and one of the layers might stay empty unseen."""
    assert Counter(LAYERS.values())[1] > 5
