"""A small Google Cloud Storage for tests: real HTTP, generations, preconditions, transcoding, faults on demand."""

from tests.support.gcs_fake.faults import Fault
from tests.support.gcs_fake.objects import FakeObjects, Stored
from tests.support.gcs_fake.place import GcsPlace
from tests.support.gcs_fake.server import GcsFake

__all__ = ["FakeObjects", "Fault", "GcsFake", "GcsPlace", "Stored"]
