"""Rendered images do not exist yet; who asks is told so, and is not told that the image is missing."""

from pathlib import Path

import pytest

from app.routes import REFUSED
from storage.bucket.memory import MemoryBucket
from tests.support.server import serving


@pytest.mark.parametrize("path", REFUSED)
async def test_rendered_images_are_406_with_the_reason(path: str, tmp_path: Path) -> None:
    url = "/dicomweb" + path.format(study_uid="1.2", series_uid="1.3", instance_uid="1.4", frame_list="1")
    async with serving(MemoryBucket("empty"), tmp_path) as client:
        response = await client.get(url, headers={"accept": "image/jpeg"})

    assert response.status_code == 406
    assert "not rendered" in response.json()["detail"]
    assert response.headers["access-control-allow-origin"] == "*"
