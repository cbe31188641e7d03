"""A server in this process: the real app over a bucket, with its lifespan, reached through httpx."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.main import create_app
from app.services import Services
from app.settings import Settings
from storage.archive import Archive
from storage.bucket import Bucket

BASE = "http://testserver:8042"
ROOT = BASE + "/dicomweb"


class Client(httpx.AsyncClient):
    """An HTTP client of one app, which also knows the app's inside for counting."""

    archive: Archive
    services: Services


@asynccontextmanager
async def serving(bucket: Bucket, state: Path, *, wait: bool = True, **settings: Any) -> AsyncIterator[Client]:
    """Serve a bucket; nothing deepens or syncs a second time unless the settings say so.

    Args:
        wait: begin when the first sync is through; False: at once, and nothing is synced by itself.
    """
    chosen = Settings(**{"state_dir": state, "deepen": "off", "sync_seconds": 0, **settings})
    app = create_app(chosen, bucket)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), Client(transport=transport, base_url=BASE) as client:
        services: Services = app.state.services
        client.archive, client.services = services.archive, services
        if wait:
            await asyncio.shield(services.upkeep)
        else:
            services.upkeep.cancel()
        yield client
