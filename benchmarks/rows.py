"""The rows of the table: what is asked, how the answer is checked, and what it is meant to take."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks import answers
from benchmarks.answers import Check
from benchmarks.data import Instance, Manifest, Series
from benchmarks.slides import Slide

ROOT = "/dicomweb"
PAGE = 100
MANY = (8, 32)
"""Numbers of clients that rows are measured with, beside one."""

_Member = TypeVar("_Member")
_JSON = {"Accept": "application/dicom+json"}
_FRAME_PARTS = {"Accept": 'multipart/related; type="application/octet-stream"'}
_FRAME = {"Accept": "application/octet-stream"}
_TILE_PARTS = {"Accept": 'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50'}
_FILES = {"Accept": 'multipart/related; type="application/dicom"'}


@dataclass(frozen=True, slots=True)
class Question:
    """One request and what its answer must be."""

    path: str
    headers: dict[str, str]
    check: Check


@dataclass(frozen=True, slots=True)
class Row:
    """Questions of one kind, asked in turn, in an order without meaning."""

    name: str
    questions: list[Question]
    aim_ms: float | None = None
    """The median that it is meant to stay below, with one client."""
    aim_share: float | None = None
    """Of nginx's rate, at most clients."""
    aim_per_second: float | None = None
    """At most clients."""
    clients: tuple[int, ...] = ()
    """How many more clients at once it is measured with, beside one."""
    beside_nginx: bool = False
    """Whether nginx sends the same bytes from files in the same run."""
    beside_orthanc: bool = False
    is_transfer: bool = False
    """One long answer, of which the throughput counts."""

    @property
    def slug(self) -> str:
        """Its name in a path."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.name).split())


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is particular to a server: where its services are, what it says and how many questions it has time for."""

    root: str
    depth: str | None
    """What X-COD-Metadata must say."""
    in_order: bool
    """Whether instances come in the order of their numbers."""
    least_attributes: float
    """Of those that an instance has, 1 is all."""
    variety: int
    """Different instances or tiles that a row asks for."""


CODWEB = Dialect(ROOT, "deep", in_order=True, least_attributes=1, variety=256)
ORTHANC = Dialect("/dicom-web", None, in_order=False, least_attributes=0.95, variety=6)


class Rows:
    """Everything that is asked of a server that has been indexed and asked before."""

    def __init__(self, manifest: Manifest, dialect: Dialect = CODWEB) -> None:
        self._manifest = manifest
        self._dialect = dialect

    def all(self) -> list[Row]:
        small, large = self._manifest.small, self._manifest.large
        return [
            *self._searches(),
            *self._metadata(),
            self._frames("frame 64×64, multipart", small[:1], _FRAME_PARTS, clients=MANY, beside_nginx=True),
            self._frames("frame 64×64, single part", small[:1], _FRAME),
            self._any_series(),
            self._frames(
                "frame 512×512, multipart",
                [large],
                _FRAME_PARTS,
                aim_ms=0.6,
                aim_share=0.6,
                clients=MANY,
                beside_nginx=True,
                beside_orthanc=True,
            ),
            self._frames("frame 512×512, single part", [large], _FRAME),
            *map(self._tiles, self._manifest.slides),
            *self._files(large),
        ]

    def _searches(self) -> list[Row]:
        manifest, root = self._manifest, self._dialect.root
        known = manifest.study_uids
        few = len(manifest.of_few().study_uids)
        pages = [PAGE, few] if len(known) >= PAGE else [few]
        series = [
            Question(f"{root}/studies/{members[0].study_uid}/series", _JSON, answers.series_of(members))
            for members in _studies(manifest.small)
        ]
        listed = [
            (f"{root}{one.path}/instances", answers.instances(one.instances, in_order=self._dialect.in_order))
            for one in self._some(manifest.small)
        ]
        in_search = "search: instances of a series"
        return [
            *(
                Row(
                    f"search: page of {count} studies",
                    [Question(f"{root}/studies?limit={count}", _JSON, answers.studies(known, count))],
                    aim_ms=2,
                    clients=MANY if count == pages[0] else (),
                    beside_orthanc=count == PAGE,
                )
                for count in pages
            ),
            Row("search: series of a study", series),
            Row(
                in_search,
                [Question(path, _JSON, check) for path, check in listed],
                aim_ms=5,
                clients=MANY,
                beside_orthanc=True,
            ),
            Row(f"{in_search}, gzip", [Question(path, _coded("gzip"), check) for path, check in listed]),
        ]

    def _metadata(self) -> list[Row]:
        small = self._some(self._manifest.small)
        return [
            *self._metadata_of("series", [[one] for one in small], ("gzip", "zstd", "identity"), aim_ms=1),
            *self._metadata_of("study", self._some(_studies(self._manifest.small)), ("gzip", "identity"), aim_ms=4),
            Row(
                "metadata: instance, identity",
                [
                    Question(f"{self._instance(series, instance)}/metadata", _JSON, self._metadata_check([instance]))
                    for series, instance in self._various(self._manifest.small)
                ],
            ),
        ]

    def _metadata_of(
        self, level: str, members: Sequence[Sequence[Series]], codings: Sequence[str], *, aim_ms: float
    ) -> list[Row]:
        texts: list[set[bytes]] = [set() for _ in members]
        rows = []
        for coding in codings:
            questions = []
            for several, text in zip(members, texts, strict=True):
                path = several[0].path if level == "series" else f"/studies/{several[0].study_uid}"
                check = self._metadata_check([instance for one in several for instance in one.instances], text)
                questions.append(Question(f"{self._dialect.root}{path}/metadata", _coded(coding), check))
            is_main = coding == "gzip"
            rows.append(
                Row(
                    f"metadata: {level}, {coding}",
                    questions,
                    aim_ms=aim_ms if is_main else None,
                    clients=MANY if is_main else (),
                    beside_nginx=is_main,
                    beside_orthanc=is_main,
                )
            )
        return rows

    def _metadata_check(self, instances: Sequence[Instance], texts: set[bytes] | None = None) -> Check:
        least = int(self._manifest.elements * self._dialect.least_attributes)
        return answers.metadata(instances, least, depth=self._dialect.depth, texts=texts)

    def _frames(
        self,
        name: str,
        series: Sequence[Series],
        headers: dict[str, str],
        *,
        aim_ms: float | None = None,
        aim_share: float | None = None,
        clients: tuple[int, ...] = (),
        beside_nginx: bool = False,
        beside_orthanc: bool = False,
    ) -> Row:
        questions = [
            Question(f"{self._instance(one, instance)}/frames/1", headers, answers.frame(instance))
            for one, instance in self._various(series)
        ]
        return Row(
            name,
            questions,
            aim_ms=aim_ms,
            aim_share=aim_share,
            clients=clients,
            beside_nginx=beside_nginx,
            beside_orthanc=beside_orthanc,
        )

    def _any_series(self) -> Row:
        """A frame of each series in turn: with more of them than a server keeps open, none is at hand."""
        series = [*self._manifest.small, *self._manifest.page]
        random.Random(2).shuffle(series)
        name = "frame 64×64, every series in turn"
        return Row(
            name,
            [
                Question(
                    f"{self._instance(one, one.instances[-1])}/frames/1", _FRAME_PARTS, answers.frame(one.instances[-1])
                )
                for one in series
            ],
        )

    def _tiles(self, slide: Slide) -> Row:
        return Row(
            f"tile, {'with' if slide.has_table else 'without'} offset table",
            tile_questions(slide, self._dialect),
            aim_ms=0.4,
            aim_per_second=8000 if slide.has_table else None,
            clients=MANY if slide.has_table else (),
            beside_nginx=slide.has_table,
            beside_orthanc=True,
        )

    def _files(self, large: Series) -> list[Row]:
        in_order = self._dialect.in_order
        one = [
            Question(self._instance(series, instance), _FILES, answers.files([instance]))
            for series, instance in self._various([large])
        ]
        whole = [
            Question(f"{self._dialect.root}{large.path}", _FILES, answers.files(large.instances, in_order=in_order))
        ]
        count = len(large.instances)
        return [
            Row("instance 512×512", one),
            Row(
                f"whole series of {count} instances",
                whole,
                aim_ms=200,
                beside_nginx=True,
                beside_orthanc=True,
                is_transfer=True,
            ),
        ]

    def _instance(self, series: Series, instance: Instance) -> str:
        return instance_path(series, instance, self._dialect.root)

    def _various(self, series: Sequence[Series]) -> list[tuple[Series, Instance]]:
        """Instances spread evenly over series, in an order without meaning."""
        all_of_them = [(one, instance) for one in series for instance in one.instances]
        step = max(1, len(all_of_them) // self._dialect.variety)
        chosen = all_of_them[::step][: self._dialect.variety]
        random.Random(1).shuffle(chosen)
        return chosen

    def _some(self, members: Sequence[_Member]) -> Sequence[_Member]:
        return members[: self._dialect.variety]


def quick_metadata(manifest: Manifest, series: Series) -> Question:
    """Series metadata made from metadata.json alone."""
    check = answers.metadata(series.instances, manifest.elements, depth="quick")
    return Question(f"{ROOT}{series.path}/metadata", _coded("gzip"), check)


def deep_metadata(manifest: Manifest, series: Series, *, depth: str | None = "deep") -> Question:
    """Series metadata made from the headers in the tar, or (None) from whichever is there."""
    check = answers.metadata(series.instances, manifest.elements, depth=depth)
    return Question(f"{ROOT}{series.path}/metadata", _coded("gzip"), check)


def deep_study_metadata(manifest: Manifest, study_uid: str) -> Question:
    """Metadata of all series of a study, made from the headers in their tars."""
    members = [one for one in manifest.small if one.study_uid == study_uid]
    instances = [instance for one in members for instance in one.instances]
    check = answers.metadata(instances, manifest.elements, depth="deep")
    return Question(f"{ROOT}/studies/{study_uid}/metadata", _coded("gzip"), check)


def first_frame(series: Series) -> Question:
    """The frame in the middle of a series, where viewers begin."""
    return frame_of(series, series.instances[len(series.instances) // 2])


def frame_of(series: Series, instance: Instance) -> Question:
    """The frame of one instance, as viewers ask for it."""
    return Question(f"{instance_path(series, instance)}/frames/1", _FRAME_PARTS, answers.frame(instance))


def tile_questions(slide: Slide, dialect: Dialect = CODWEB) -> list[Question]:
    """Tiles from all over a slide."""
    numbers = random.Random(3).sample(range(len(slide.tiles)), min(dialect.variety, len(slide.tiles)))
    path = f"{dialect.root}{slide.path}/instances/{slide.uid}/frames"
    return [Question(f"{path}/{index + 1}", _TILE_PARTS, answers.tile(slide, index)) for index in numbers]


def instance_path(series: Series, instance: Instance, root: str = ROOT) -> str:
    return f"{root}{series.path}/instances/{instance.uid}"


def studies_of(series: Iterable[Series]) -> list[str]:
    """Their studies' UIDs."""
    return list(dict.fromkeys(one.study_uid for one in series))


def _studies(series: Sequence[Series]) -> list[list[Series]]:
    """The series by study."""
    studies: dict[str, list[Series]] = {}
    for one in series:
        studies.setdefault(one.study_uid, []).append(one)
    return [*studies.values()]


def _coded(coding: str) -> dict[str, str]:
    return {**_JSON, "Accept-Encoding": coding}
