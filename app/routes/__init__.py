"""The resources of PS3.18 §10, in its order: retrieve (§10.4), search (§10.6); then the service's own.

Hot resources are plain endpoints (`app.routes.dispatch`): dependency solving would cost more than the answer. `RETRIEVE`
documents them.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.routes.bulkdata import retrieve_bulkdata
from app.routes.frames import retrieve_all_frames, retrieve_frames
from app.routes.instances import retrieve_instance, retrieve_series, retrieve_study
from app.routes.metadata import retrieve_instance_metadata, retrieve_series_metadata, retrieve_study_metadata

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]  # Any: what Starlette declares

_STUDY = "/studies/{study_uid}"
_SERIES = _STUDY + "/series/{series_uid}"
_INSTANCE = _SERIES + "/instances/{instance_uid}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the Studies Service."""

    path: str
    endpoint: Endpoint
    summary: str
    media_type: str


RETRIEVE = (
    Resource(_STUDY, retrieve_study, "All instances of a study", "multipart/related"),
    Resource(_STUDY + "/metadata", retrieve_study_metadata, "Metadata of a study", "application/dicom+json"),
    Resource(_SERIES, retrieve_series, "All instances of a series", "multipart/related"),
    Resource(_SERIES + "/metadata", retrieve_series_metadata, "Metadata of a series", "application/dicom+json"),
    Resource(_INSTANCE, retrieve_instance, "One instance", "multipart/related"),
    Resource(_INSTANCE + "/metadata", retrieve_instance_metadata, "Metadata of an instance", "application/dicom+json"),
    Resource(_INSTANCE + "/frames", retrieve_all_frames, "All frames of an instance", "multipart/related"),
    Resource(_INSTANCE + "/frames/{frame_list}", retrieve_frames, "Frames of an instance", "multipart/related"),
    Resource(
        _INSTANCE + "/bulkdata/{attribute_path:path}",
        retrieve_bulkdata,
        "One bulk data value",
        "application/octet-stream",
    ),
)

REFUSED = tuple(
    f"{path}/{image}"
    for path in (_STUDY, _SERIES, _INSTANCE, _INSTANCE + "/frames/{frame_list}")
    for image in ("rendered", "thumbnail")
)
"""Resources that viewers ask for and that are answered with 406 and the reason."""
