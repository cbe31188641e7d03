"""How uvicorn serves an app: in one process, and in each of many."""

import uvicorn
from fastapi import FastAPI

GRACE_SECONDS = 10
"""How long a server that was asked to stop goes on sending what it has begun."""

KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep an idle connection (nginx and AWS's load balancers: 60 s), or they meet one just closed."""


def server_config(app: FastAPI) -> uvicorn.Config:
    """The one configuration of uvicorn; the lines of its own log below a warning are left out by `app.log`."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # paths and queries name patients
        proxy_headers=False,  # `CODWEB_TRUSTED_PROXIES` decides, not uvicorn's default
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
    )
