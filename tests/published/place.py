"""A datastore on the fake of Cloud Storage, as codweb and the library both see it, and what codweb makes of it."""

import itertools
import time
from pathlib import Path

from storage.archive import Archive
from storage.bucket import Bucket, BucketOptions, open_bucket
from storage.bucket.options import GcsOptions
from storage.checking import Finding, check_datastore
from storage.checking.findings import Kind
from storage.ingest import Report, ingest
from storage.keys import SeriesKey
from storage.metadata_modes import Extrapolation
from tests.conftest import DATA
from tests.ingest.reading import key_of, read_quietly
from tests.support.gcs_fake import GcsFake

PREFIX = "v1.0/dicomweb"
"""As the library's makers name theirs."""

ROOT = "http://testserver/dicomweb"

THEIR_FLAWS = (Kind.LOSSY_METADATA, Kind.WRONG_TABLE, Kind.FOREIGN_URI)
"""What a check finds in what the library wrote; everything can be served."""

_numbers = itertools.count()


class Place:
    """An empty datastore.

    Attributes:
        url: its address, the same for both.
        bucket: opened; close it in the loop that used it.
    """

    def __init__(self, fake: GcsFake, *, name: str = "", prefix: str = PREFIX) -> None:
        self._fake = fake
        self._name = name or f"place-{next(_numbers)}"
        fake.objects.make_bucket(self._name)
        self._prefix = prefix
        self.url = f"gs://{self._name}/{prefix}"
        self.bucket = open_anonymously(self.url, fake.endpoint)

    def put(self, key: str, data: bytes, *, age_seconds: float = 0.0) -> None:
        """Put an object past everybody, compressed text as such."""
        coding = "gzip" if data.startswith(b"\x1f\x8b") else ""
        then = time.time() - age_seconds
        name = f"{self._prefix}/{key}"
        self._fake.objects.put(self._name, name, data, content_encoding=coding, created=then, updated=then)

    def put_fixture(self, store: str) -> None:
        """A store of tests/data/cod; its entries name gs://cod/<store>/dicomweb."""
        root = DATA / "cod" / store / "dicomweb"
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.put(path.relative_to(root).as_posix(), path.read_bytes())

    def versions(self) -> dict[str, int]:
        """Key → generation of every object: equal if and only if nothing was touched."""
        objects = self._fake.objects
        return {
            name.removeprefix(f"{self._prefix}/"): objects.get(self._name, name, None).generation
            for name in objects.names(self._name)
        }

    async def read(self, key: SeriesKey, state: Path) -> dict[str, bytes]:
        """Every instance of a series as codweb serves it, by its UID.

        Args:
            state: an empty folder, or one of this datastore.
        """
        bucket = open_anonymously(self.url, self._fake.endpoint)  # of its own: the archive closes it
        archive = Archive(bucket, state, root=ROOT, rules=Extrapolation((), ()), deepen="off", own_process=False)
        try:
            (series,) = await archive.instances.of_series([key])
            return {
                file.instance.uid: b"".join([bytes(chunk) async for chunk in file.chunks])
                async for file in archive.instances.files(series)
            }
        finally:
            await archive.close()


def open_anonymously(url: str, endpoint: str) -> Bucket:
    return open_bucket(url, options=BucketOptions(gcs=GcsOptions(endpoint=endpoint, anonymous=True)))


async def stored_by_codweb(bucket: Bucket, *paths: Path) -> SeriesKey:
    """Ingest files of one series; all of them are stored then."""
    report = await ingest(list(paths), bucket)
    assert report.is_clean, complaints(report)
    return key_of(report)


def complaints(report: Report) -> list[str]:
    """Everything that an ingest has to say against what it was given."""
    return [note.message for note in report.series if note.message] + [each.reason for each in report.refused]


def by_uid(*paths: Path) -> dict[str, bytes]:
    """The bytes of source files by their SOP Instance UID."""
    return {str(read_quietly(path).SOPInstanceUID): path.read_bytes() for path in paths}


def key_of_file(path: Path) -> SeriesKey:
    """The series that a source file says it belongs to."""
    header = read_quietly(path)
    return SeriesKey(str(header.StudyInstanceUID), str(header.SeriesInstanceUID))


async def flaws(bucket: Bucket) -> list[Finding]:
    """What `codweb check` finds wrong with every byte read, apart from what the library is known for."""
    findings = [finding async for finding in check_datastore(bucket, all_bytes=True)]
    return [finding for finding in findings if finding.kind not in THEIR_FLAWS]
