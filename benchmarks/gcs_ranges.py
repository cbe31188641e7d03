"""What one ranged read of Google Cloud Storage costs a client: the way that codweb takes, and the ways that it does not.

    .venv/bin/python -m benchmarks.gcs_ranges

nginx on this machine stands for the service, so what is measured is the client; the real service is always TLS.
`docs/decisions/0006-gcs-reads.md` keeps the figures.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen, run
from typing import Any

import aiohttp
import obstore
import uvloop
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as google_storage  # type: ignore[attr-defined, import-untyped, unused-ignore] # ships no types
from obstore.store import GCSStore

from benchmarks.server import HOST, free_port, nginx_program
from storage.bucket.gcs import GcsStore
from storage.bucket.options import BucketOptions, GcsOptions
from storage.bucket.remote.bucket import RemoteBucket
from storage.ranges import ByteRange

BUCKET, KEY = "bucket", "object.tar"
OBJECT_BYTES = 64 << 20
GENERATION = "1700000000000000"
SECONDS = 1.5
"""Of one figure, after a warming of half a second."""
KIB = 1024

Read = Callable[[int, int], Awaitable[int]]
"""Reads [start, stop), tells how many bytes came."""

_HEAD = """| range | client | requests/s | CPU ms a request | of these on the event loop |
|---|---|---|---|---|"""
_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  access_log off; tcp_nodelay on; tcp_nopush off; sendfile on; keepalive_requests 1000000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen {host}:{plain}; listen {host}:{secured} ssl;
    ssl_certificate {folder}/certificate; ssl_certificate_key {folder}/key;
    add_header X-Goog-Generation {generation};
    add_header X-Goog-Stored-Content-Encoding identity;
    location / {{ root {folder}; rewrite ^ /object break; }}
  }}
}}
"""


async def main() -> int:
    program, openssl = nginx_program(), shutil.which("openssl")
    if program is None or openssl is None:
        print("nginx and openssl are needed")
        return 2
    print(_HEAD)
    with tempfile.TemporaryDirectory() as name, _nginx(program, openssl, Path(name)) as endpoints:
        for size in (64 * KIB, 512 * KIB):
            for endpoint in endpoints:
                for in_flight in (1, 32):
                    for label, read, close in _clients(endpoint):
                        rate, cost, loop = await _measured(read, size, in_flight)
                        way = f"{size // KIB} KiB, {endpoint.partition(':')[0]}, {in_flight} in flight"
                        print(f"| {way} | {label} | {rate:,.0f} | {cost:.2f} | {loop:.2f} |", flush=True)
                        await close()
    return 0


def _clients(endpoint: str) -> Iterator[tuple[str, Read, Callable[[], Awaitable[None]]]]:
    """What trusts no certificate of this machine's making is asked without TLS only."""
    yield _by_obstore(endpoint)
    yield _by_aiohttp(endpoint)
    if endpoint.startswith("http://"):
        yield _by_codweb(endpoint)
        yield _by_google(endpoint)


def _by_codweb(endpoint: str) -> tuple[str, Read, Callable[[], Awaitable[None]]]:
    options = BucketOptions(gcs=GcsOptions(endpoint=endpoint))
    bucket = RemoteBucket(GcsStore.open(BUCKET, "", options), options.patience)

    async def read(start: int, stop: int) -> int:
        return len((await bucket.read(KEY, ByteRange(start, stop), version=GENERATION)).data)

    return "codweb's bucket (obstore)", read, bucket.close


def _by_obstore(endpoint: str) -> tuple[str, Read, Callable[[], Awaitable[None]]]:
    store = GCSStore(
        BUCKET,
        config={"base_url": endpoint, "skip_signature": True},
        client_options={
            "allow_http": True,
            "allow_invalid_certificates": True,
            "default_headers": {"accept-encoding": "gzip"},
        },
    )

    async def read(start: int, stop: int) -> int:
        answer = await obstore.get_async(store, KEY, options={"range": (start, stop), "version": GENERATION})
        assert answer.meta["version"] == GENERATION
        return len(await answer.bytes_async())

    async def close() -> None:
        pass

    return "obstore", read, close


def _by_aiohttp(endpoint: str) -> tuple[str, Read, Callable[[], Awaitable[None]]]:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=64, ssl=False), auto_decompress=False, read_bufsize=1 << 20
    )
    url = f"{endpoint}/download/storage/v1/b/{BUCKET}/o/{KEY}?alt=media&ifGenerationMatch={GENERATION}"

    async def read(start: int, stop: int) -> int:
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "gzip"}
        async with session.get(url, headers=headers) as answer:
            assert answer.headers["X-Goog-Generation"] == GENERATION
            return len(await answer.read())

    return "aiohttp", read, session.close


def _by_google(endpoint: str) -> tuple[str, Read, Callable[[], Awaitable[None]]]:
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call] # google-auth
    client: Any = google_storage.Client(project="none", credentials=nobody, client_options={"api_endpoint": endpoint})
    threads = ThreadPoolExecutor(32)

    def blocking(start: int, stop: int) -> int:
        blob = client.bucket(BUCKET).blob(KEY)
        data = blob.download_as_bytes(
            start=start, end=stop - 1, raw_download=True, checksum=None, retry=None, if_generation_match=int(GENERATION)
        )
        return len(data)

    async def read(start: int, stop: int) -> int:
        return await asyncio.get_running_loop().run_in_executor(threads, blocking, start, stop)

    async def close() -> None:
        threads.shutdown()
        client.close()

    return "google-cloud-storage in threads", read, close


async def _measured(read: Read, size: int, in_flight: int) -> tuple[float, float, float]:
    """Requests per second; processor milliseconds for each, of this process and of the event loop's thread alone."""
    count = 0
    until = time.perf_counter() + SECONDS / 4

    async def reader(position: int) -> None:
        nonlocal count
        while time.perf_counter() < until:
            position = (position + 7 * size) % (OBJECT_BYTES - size)
            assert await read(position, position + size) == size
            count += 1

    async def readers() -> None:
        await asyncio.gather(*(reader(index * size) for index in range(in_flight)))

    await readers()
    count = 0
    begun, spent, loop = time.perf_counter(), time.process_time(), time.thread_time()
    until = begun + SECONDS
    await readers()
    seconds = time.perf_counter() - begun
    spent, loop = time.process_time() - spent, time.thread_time() - loop
    return count / seconds, spent / count * 1000, loop / count * 1000


@contextmanager
def _nginx(program: str, openssl: str, folder: Path) -> Iterator[tuple[str, str]]:
    plain, secured = free_port(), free_port()
    (folder / "object").write_bytes(bytes(OBJECT_BYTES))
    own = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    run([*own, "-keyout", str(folder / "key"), "-out", str(folder / "certificate")], check=True, capture_output=True)
    text = _NGINX.format(folder=folder, host=HOST, plain=plain, secured=secured, generation=GENERATION)
    (folder / "nginx.conf").write_text(text)
    folder.chmod(0o755)  # its worker may run as another user
    process = Popen([program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        time.sleep(0.5)
        yield f"http://{HOST}:{plain}", f"https://{HOST}:{secured}"
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
