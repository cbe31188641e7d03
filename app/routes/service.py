"""The service itself: whether it lives, whether it is ready, and what it can do."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.services import services
from storage.errors import StorageError

router = APIRouter(tags=["Service"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def health() -> dict[str, str]:
    """200 while the process answers."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readiness(request: Request) -> Response:
    """200 when bucket and catalogue answer; `catalogue.complete` once the first sync is through.

    `processes` are those of this server, whichever of them answers; of `rss_bytes`, `private_bytes` are not pages of
    files, which processes share.
    """
    archive = services(request).archive
    try:
        async for _ in archive.bucket.list("studies/"):
            break
        status = await archive.catalogue.status()
    except StorageError as error:
        return JSONResponse(
            {"status": "unavailable", "reason": str(error)}, status_code=503, headers={"retry-after": "5"}
        )
    return JSONResponse(
        {
            "status": "ready",
            "catalogue": {
                "studies": status.studies,
                "series": status.series,
                "problems": status.problems,
                "complete": status.complete,
            },
            "processes": services(request).crew.processes(),
        }
    )
