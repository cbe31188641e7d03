"""The rows of the table: what is asked, how the answer is checked, and what it is meant to take."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import answers
from benchmarks.answers import Check
from benchmarks.data import Instance, Manifest, Series

ROOT = "/dicomweb"
PAGE = 100
VARIETY = 64
"""Different instances that a row asks for in turn."""

_JSON = {"Accept": "application/dicom+json"}
_FRAME_PARTS = {"Accept": 'multipart/related; type="application/octet-stream"'}
_FRAME = {"Accept": "application/octet-stream"}
_FILES = {"Accept": 'multipart/related; type="application/dicom"'}


@dataclass(frozen=True, slots=True)
class Question:
    """One request and what its answer must be."""

    path: str
    headers: dict[str, str]
    check: Check


@dataclass(frozen=True, slots=True)
class Row:
    """Questions of one kind, asked in turn."""

    name: str
    questions: list[Question]
    aim_ms: float | None = None
    """The median that it is meant to stay below, with one client."""
    clients: tuple[int, ...] = ()
    """How many more clients at once it is measured with, beside one."""
    beside_nginx: bool = False
    """Whether nginx sends the same bytes from files in the same run."""
    is_transfer: bool = False
    """One long answer, of which the throughput counts."""

    @property
    def slug(self) -> str:
        """Its name in a path."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.name).split())


def warm_rows(manifest: Manifest) -> list[Row]:
    """Everything that is asked of a server that has been indexed and asked before."""
    small, large = manifest.small, manifest.large
    return [*_search_rows(manifest), *_metadata_rows(manifest), *_frame_rows(small[0], large), *_file_rows(large)]


def quick_metadata(manifest: Manifest, series: Series) -> Question:
    """Series metadata made from metadata.json alone."""
    check = answers.metadata(series.instances, manifest.elements, depth="quick")
    return Question(f"{ROOT}{series.path}/metadata", {**_JSON, "Accept-Encoding": "gzip"}, check)


def deep_metadata(manifest: Manifest, series: Series) -> Question:
    """Series metadata made from the headers in the tar."""
    question = quick_metadata(manifest, series)
    return Question(
        question.path, question.headers, answers.metadata(series.instances, manifest.elements, depth="deep")
    )


def first_frame(series: Series) -> Question:
    """The frame in the middle of a series, where viewers begin."""
    instance = series.instances[len(series.instances) // 2]
    return Question(f"{_instance_path(series, instance)}/frames/1", _FRAME_PARTS, answers.frame(instance))


def _search_rows(manifest: Manifest) -> list[Row]:
    study_uids = {series.study_uid for series in manifest.series}
    page = answers.studies(study_uids, min(PAGE, len(study_uids)))
    series = [
        Question(f"{ROOT}/studies/{members[0].study_uid}/series", _JSON, answers.series_of(members))
        for members in _studies(manifest.small)
    ]
    listed = [(f"{ROOT}{one.path}/instances", answers.instances(one.instances)) for one in manifest.small]
    return [
        Row("search: page of 100 studies", [Question(f"{ROOT}/studies?limit={PAGE}", _JSON, page)], aim_ms=2),
        Row("search: series of a study", series),
        Row("search: instances of a series", [Question(path, _JSON, check) for path, check in listed], aim_ms=5),
        Row("search: instances of a series, gzip", [Question(path, _coded("gzip"), check) for path, check in listed]),
    ]


def _metadata_rows(manifest: Manifest) -> list[Row]:
    rows = []
    groups = (("series", [[one] for one in manifest.small]), ("study", _studies(manifest.small)))
    aims = {"series": 1.0, "study": 4.0}
    for level, members in groups:
        texts: list[set[bytes]] = [set() for _ in members]
        for coding in ("gzip", "zstd", "identity") if level == "series" else ("gzip", "identity"):
            questions = []
            for several, text in zip(members, texts, strict=True):
                path = several[0].path if level == "series" else f"/studies/{several[0].study_uid}"
                expected = [instance for one in several for instance in one.instances]
                check = answers.metadata(expected, manifest.elements, depth="deep", texts=text)
                questions.append(Question(f"{ROOT}{path}/metadata", _coded(coding), check))
            is_gzip = coding == "gzip"
            rows.append(
                Row(
                    f"metadata: {level}, {coding}",
                    questions,
                    aim_ms=aims[level] if is_gzip else None,
                    beside_nginx=is_gzip and level == "series",
                )
            )
    single = [
        Question(
            f"{_instance_path(series, instance)}/metadata",
            _JSON,
            answers.metadata([instance], manifest.elements, depth="deep"),
        )
        for series, instance in _various(manifest.small)
    ]
    return [*rows, Row("metadata: instance, identity", single)]


def _frame_rows(small: Series, large: Series) -> list[Row]:
    rows = []
    for series, size, aim_ms in ((small, "64×64", None), (large, "512×512", 0.6)):
        for form, headers in (("multipart", _FRAME_PARTS), ("single part", _FRAME)):
            questions = [
                Question(f"{_instance_path(one, instance)}/frames/1", headers, answers.frame(instance))
                for one, instance in _various([series])
            ]
            is_main = form == "multipart"
            rows.append(
                Row(
                    f"frame {size}, {form}",
                    questions,
                    aim_ms=aim_ms if is_main else None,
                    clients=(8, 32) if is_main else (),
                    beside_nginx=is_main,
                )
            )
    return rows


def _file_rows(large: Series) -> list[Row]:
    one = [
        Question(_instance_path(series, instance), _FILES, answers.files([instance]))
        for series, instance in _various([large])
    ]
    whole = [Question(f"{ROOT}{large.path}", _FILES, answers.files(large.instances))]
    count = len(large.instances)
    return [
        Row("instance 512×512", one),
        Row(f"whole series of {count} instances", whole, beside_nginx=True, is_transfer=True),
    ]


def _studies(series: Sequence[Series]) -> list[list[Series]]:
    """The series by study."""
    studies: dict[str, list[Series]] = {}
    for one in series:
        studies.setdefault(one.study_uid, []).append(one)
    return [*studies.values()]


def _various(series: Sequence[Series]) -> list[tuple[Series, Instance]]:
    """Instances spread evenly over series."""
    all_of_them = [(one, instance) for one in series for instance in one.instances]
    step = max(1, len(all_of_them) // VARIETY)
    return all_of_them[::step][:VARIETY]


def _instance_path(series: Series, instance: Instance) -> str:
    return f"{ROOT}{series.path}/instances/{instance.uid}"


def _coded(coding: str) -> dict[str, str]:
    return {**_JSON, "Accept-Encoding": coding}
