"""The table from errors to statuses, and what an error answer tells."""

import importlib
import pkgutil

import pytest

import app
import storage
from app.errors import (
    STATUS,
    NotAcceptable,
    RangeNotSatisfiable,
    RequestError,
    UnknownHost,
    problem,
    retry_after_seconds,
    status_of,
)
from storage.errors import (
    Conflict,
    CorruptSeries,
    FrameNotFound,
    NotFound,
    SeriesInMotion,
    StorageError,
    StorageUnavailable,
    Withheld,
)


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def own_errors() -> list[type[Exception]]:
    """All classes of both trees, once every module of the project has been imported."""
    for package in (app, storage):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    kinds = subclasses(StorageError) | subclasses(RequestError)
    return sorted(
        (kind for kind in kinds if kind.__module__.startswith(("app", "storage"))), key=lambda kind: kind.__name__
    )


def test_every_error_of_both_trees_has_a_status_of_its_own():
    trees = [kind for kind in own_errors() if kind.__module__ in ("app.errors", "storage.errors")]

    assert [kind.__name__ for kind in trees if kind not in STATUS] == []


def test_an_error_that_one_store_keeps_to_itself_answers_as_its_parent_would():
    """Should one get out after all, it is a failure to read and never an absence."""
    private = [kind for kind in own_errors() if kind.__module__ not in ("app.errors", "storage.errors")]

    assert all(kind.__module__.startswith("storage.bucket.") for kind in private)
    assert {status_of(kind("x")) for kind in private} == {503}


def test_an_error_keeps_the_status_class_of_its_parent():
    """A child of `NotFound` that answered 500 would be a lie of the table."""
    for parent in (NotFound, Conflict, CorruptSeries, StorageUnavailable):
        assert {STATUS[kind] for kind in subclasses(parent) if kind in STATUS} == {STATUS[parent]}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FrameNotFound("7"), 404),
        (Conflict(), 409),
        (Withheld(), 406),
        (CorruptSeries(), 500),
        (SeriesInMotion(), 503),
        (StorageError(), 500),
        (RequestError("x"), 400),
        (NotAcceptable("x"), 406),
        (UnknownHost("x"), 400),
        (RangeNotSatisfiable(7), 416),
        (KeyError("stranger"), 500),
    ],
)
def test_status_of(error, status):
    assert status_of(error) == status


def test_a_class_without_a_row_takes_the_row_of_its_nearest_parent():
    class Elsewhere(FrameNotFound):
        """Not of this project, so not for the walk above."""

    Elsewhere.__module__ = "elsewhere"

    assert status_of(Elsewhere()) == 404


def test_unavailable_storage_names_the_seconds_to_wait():
    assert retry_after_seconds(StorageUnavailable()) == 5
    assert retry_after_seconds(SeriesInMotion()) == 10
    assert retry_after_seconds(CorruptSeries()) is None
    assert problem(SeriesInMotion("series 1.2"))["retry_after_seconds"] == 10


def test_problem_has_the_members_of_rfc_9457():
    body = problem(FrameNotFound("instance 1.2.3 has 4 frames, 9 was asked"))

    assert body == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "instance 1.2.3 has 4 frames, 9 was asked",
        "error": "FrameNotFound",
    }


def test_406_lists_what_is_available():
    body = problem(NotAcceptable("no", ["application/dicom+json"]))

    assert body["status"] == 406
    assert body["available"] == ["application/dicom+json"]


def test_the_message_of_a_foreign_error_is_kept_back():
    """pydicom and the standard library put values into their messages."""
    body = problem(ValueError("bad value for PatientName: Doe^Jane"))

    assert body["status"] == 500
    assert "Doe" not in str(body)
