"""The published COD library as a process: one JSON request a line on stdin, one JSON answer a line on stdout.

Runs in `.venv-published`, so it imports nothing of codweb. `STORAGE_EMULATOR_HOST` says where Cloud Storage is.
"""

import base64
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any  # JSON, and the library itself carries hardly any types

from cloud_optimized_dicom import __version__
from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.series_metadata import SeriesMetadata
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

Request = Mapping[str, Any]
Answer = dict[str, Any]


class Worker:
    """Answers requests one after the other; a lock that was taken stays until it is given back."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what the library prints must not stand between the answers
        self._client = storage.Client(project="nobody", credentials=AnonymousCredentials())
        self._held: CODObject | None = None
        self._verbs: dict[str, Callable[[Request], Answer]] = {
            "hello": self._hello,
            "read": self._read,
            "append": self._append,
            "hold": self._hold,
            "release": self._release,
        }

    def work(self) -> None:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = self._verbs[request["verb"]](request)
            except Exception as error:  # noqa: BLE001  # whatever it is, the test decides what it means
                answer = {"error": told(error)}
            self._say(answer)

    def _say(self, answer: Answer) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)

    def _open(self, request: Request, mode: str) -> CODObject:
        return CODObject(
            datastore_path=request["datastore"],
            client=self._client,
            study_uid=request["study_uid"],
            series_uid=request["series_uid"],
            mode=mode,
            create_if_missing=mode != "r",
            empty_lock_override_age=request.get("override_age"),
        )

    def _hello(self, request: Request) -> Answer:
        return {"version": __version__}

    def _read(self, request: Request) -> Answer:
        """All instances with what the library says of them and the bytes that it returns, and its own check."""
        with self._open(request, "r") as series:
            answer: Answer = {"unlisted": "", "unsound": "", "fields": series.get_metadata().metadata_fields}
            try:
                series.integrity_check()
            except Exception as error:  # noqa: BLE001  # as above
                answer["unsound"] = told(error)
            answer["uses_index"] = self._uses_index(series)
            try:
                series.get_instances()
            except Exception as error:  # noqa: BLE001  # as above
                answer["unlisted"] = told(error)
            series.pull_tar()
            instances = series.get_metadata().instances
            answer["instances"] = {uid: self._described(each) for uid, each in instances.items()}
            return answer

    def _uses_index(self, series: CODObject) -> bool:
        """Whether its check read the tar by index.sqlite as it is stored: one that is no good is thrown away for another."""
        if not os.path.exists(series.index_file_path):
            return False
        with open(series.index_file_path, "rb") as used:
            return used.read() == storage.Blob.from_string(series.index_uri, client=self._client).download_as_bytes()

    def _described(self, instance: Instance) -> Answer:
        described: Answer = {
            "size": instance.size(),
            "crc32c": instance.crc32c(),
            "uids": [instance.study_uid(), instance.series_uid(), instance.instance_uid()],
            "has_pixeldata": instance.has_pixeldata,
            "tags": list(instance.metadata),
            "unopened": "",
            "data": "",
        }
        try:
            with instance.open() as opened:
                described["data"] = base64.b64encode(opened.read()).decode("ascii")
        except Exception as error:  # noqa: BLE001  # as above
            described["unopened"] = told(error)
        return described

    def _append(self, request: Request) -> Answer:
        """One session in mode `a` or `w`; with the library's own transcoding, or the bytes as they are."""
        if request["pause"]:
            self._pause_before_locking()
        with self._open(request, request["mode"]) as series:
            result = series.append([Instance(path) for path in request["paths"]], compress=request["compress"])
            return {
                "new": [each.instance_uid() for each in result.new],
                "same": [each.instance_uid() for each in result.same],
                "conflict": [each.instance_uid() for each in result.conflict],
                "errors": [told(error) for _, error in result.errors],
            }

    def _pause_before_locking(self) -> None:
        """Say so and wait for a line when the library makes the text of its lock, the last thing before it locks."""
        as_published = SeriesMetadata.to_gzipped_json

        def pausing(metadata: SeriesMetadata) -> bytes:
            SeriesMetadata.to_gzipped_json = as_published
            self._say({"paused": True})
            sys.stdin.readline()
            return as_published(metadata)

        SeriesMetadata.to_gzipped_json = pausing

    def _hold(self, request: Request) -> Answer:
        self._held = self._open(request, "a")
        return {}

    def _release(self, request: Request) -> Answer:
        """Leave the session without a change: nothing is written, the lock goes."""
        assert self._held is not None
        with self._held:
            self._held = None
        return {}


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    Worker().work()
