"""One Cloud Storage and one running library for the tests of a worker process; they skip where it is not installed."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.published.library import PYTHON, Library
from tests.published.place import Place
from tests.support.gcs_fake import GcsFake


@pytest.fixture(scope="session")
def fake() -> Iterator[GcsFake]:
    with GcsFake() as fake:
        yield fake


@pytest.fixture(scope="session")
def library(fake: GcsFake) -> Iterator[Library]:
    if not PYTHON.exists():
        pytest.skip("the published library is not installed: run tests/published/make_environment")
    with Library(fake.endpoint) as library:
        yield library


@pytest.fixture
async def place(fake: GcsFake) -> AsyncIterator[Place]:
    place = Place(fake)
    yield place
    await place.bucket.close()
