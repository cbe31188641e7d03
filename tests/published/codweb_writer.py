"""A process of codweb that stores files of one series one by one, each again and again until it is stored.

Says `ready`, waits for a line, then says each complaint as a line of JSON, and `done` in the end.
"""

import asyncio
import json
import sys
from pathlib import Path

from storage.ingest import ingest
from tests.published.place import complaints, open_anonymously
from tests.support.buckets import SlowBucket

REQUEST_SECONDS = 0.02
PAUSE_SECONDS = 0.05
"""Before a file is tried again."""


async def store(url: str, endpoint: str, files: list[Path]) -> None:
    bucket = SlowBucket(open_anonymously(url, endpoint), REQUEST_SECONDS)
    assert [
        info async for info in bucket.list("studies/")
    ] == []  # clients and connections are made by the first request
    say("ready")
    sys.stdin.readline()
    for path in files:
        while True:
            report = await ingest([path], bucket)
            if report.is_clean:
                break
            for complaint in complaints(report):
                say(json.dumps(complaint))
            await asyncio.sleep(PAUSE_SECONDS)
    await bucket.close()
    say("done")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(store(sys.argv[1], sys.argv[2], [Path(name) for name in sys.argv[3:]]))
