"""What S3 answers, for as much of it as readers and writers of objects use (API version 2006-03-01).

GetObject and HeadObject with ranges and preconditions, ListObjectsV2, PutObject with preconditions, multipart uploads,
DeleteObject and DeleteObjects. Signatures are not checked.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from urllib.parse import quote
from uuid import uuid4
from xml.sax.saxutils import escape, unescape

from benchmarks.far_s3.messages import Answer, Request
from benchmarks.far_s3.objects import Objects, Stored

MOST_KEYS = 1000
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_KEY = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Service:
    """One bucket over a folder."""

    def __init__(self, bucket: str, objects: Objects) -> None:
        self._bucket = bucket
        self._objects = objects
        self._uploads: dict[str, dict[int, bytes]] = {}
        """Parts by number, by upload."""

    def answer(self, request: Request) -> Answer:
        if request.bucket != self._bucket:
            return _error(404, "NoSuchBucket")
        if not request.key:
            return self._of_bucket(request)
        verbs: dict[str, Callable[[Request], Answer]] = {
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "POST": self._post,
            "DELETE": self._delete,
        }
        verb = verbs.get(request.method)
        return verb(request) if verb is not None else _error(405, "MethodNotAllowed")

    def _of_bucket(self, request: Request) -> Answer:
        if request.method == "HEAD":
            return Answer(200, {"Content-Length": "0"})
        if request.method == "POST" and "delete" in request.query:
            return self._delete_several(request)
        if request.method != "GET":
            return _error(501, "NotImplemented")
        if "location" in request.query:
            return _xml(200, f'<LocationConstraint xmlns="{_NAMESPACE}"/>')
        if request.query.get("list-type") != "2":
            return _error(501, "NotImplemented")
        return self._list(request.query)

    def _list(self, query: Mapping[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = bytes.fromhex(query["continuation-token"]).decode() if "continuation-token" in query else None
        most = min(int(query.get("max-keys", MOST_KEYS)), MOST_KEYS)
        page = self._objects.page(
            prefix, after=query.get("start-after", "") if after is None else after, delimiter=delimiter, most=most
        )
        coded: Callable[[str], str] = quote if query.get("encoding-type") == "url" else escape
        contents = "".join(
            f"<Contents><Key>{coded(one.key)}</Key><LastModified>{_moment(one.modified)}</LastModified>"
            f"<ETag>{escape(one.etag, {chr(34): '&quot;'})}</ETag><Size>{one.size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for one in page.objects
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{coded(folder)}</Prefix></CommonPrefixes>" for folder in page.folders
        )
        token = f"<NextContinuationToken>{page.last.encode().hex()}</NextContinuationToken>" if page.last else ""
        coding = "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else ""
        return _xml(
            200,
            f'<ListBucketResult xmlns="{_NAMESPACE}"><Name>{self._bucket}</Name><Prefix>{coded(prefix)}</Prefix>'
            f"<KeyCount>{len(page.objects) + len(page.folders)}</KeyCount><MaxKeys>{most}</MaxKeys>{coding}"
            f"<IsTruncated>{'true' if page.last else 'false'}</IsTruncated>{token}{contents}{folders}"
            "</ListBucketResult>",
        )

    def _get(self, request: Request) -> Answer:
        stored = self._objects.head(request.key)
        if stored is None:
            return _error(404, "NoSuchKey")
        wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
        if wanted is not None and not _names(wanted, stored):
            return _error(412, "PreconditionFailed")
        headers = {"ETag": stored.etag, "Last-Modified": formatdate(stored.modified, usegmt=True)}
        if unwanted is not None and _names(unwanted, stored):
            return Answer(304, headers)
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "binary/octet-stream"}
        start, stop, status = 0, stored.size, 200
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if asked is not None and asked[1] + asked[2]:
            start, stop = _range(asked[1], asked[2], stored.size)
            if start >= stop:
                return _error(416, "InvalidRange")
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
        headers["Content-Length"] = str(stop - start)
        return Answer(status, headers, file=request.key, start=start, stop=stop)

    def _put(self, request: Request) -> Answer:
        if "x-amz-copy-source" in request.headers:
            return _error(501, "NotImplemented")
        if "uploadId" in request.query:
            return self._put_part(request)
        refused = self._refused(request)
        if refused is not None:
            return refused
        return Answer(200, {"ETag": self._objects.put(request.key, request.body).etag, "Content-Length": "0"})

    def _put_part(self, request: Request) -> Answer:
        parts = self._uploads.get(request.query["uploadId"])
        if parts is None:
            return _error(404, "NoSuchUpload")
        number = int(request.query["partNumber"])
        parts[number] = request.body
        return Answer(200, {"ETag": f'"part-{number}"', "Content-Length": "0"})

    def _post(self, request: Request) -> Answer:
        place = f"<Bucket>{self._bucket}</Bucket><Key>{escape(request.key)}</Key>"
        if "uploads" in request.query:
            upload = uuid4().hex
            self._uploads[upload] = {}
            name = "InitiateMultipartUploadResult"
            return _xml(200, f'<{name} xmlns="{_NAMESPACE}">{place}<UploadId>{upload}</UploadId></{name}>')
        parts = self._uploads.get(request.query.get("uploadId", ""))
        if parts is None:
            return _error(404, "NoSuchUpload")
        refused = self._refused(request)
        if refused is not None:
            return refused
        stored = self._objects.put(request.key, b"".join(parts[number] for number in sorted(parts)))
        del self._uploads[request.query["uploadId"]]
        name = "CompleteMultipartUploadResult"
        return _xml(200, f'<{name} xmlns="{_NAMESPACE}">{place}<ETag>{escape(stored.etag)}</ETag></{name}>')

    def _delete(self, request: Request) -> Answer:
        if "uploadId" in request.query:
            self._uploads.pop(request.query["uploadId"], None)
        else:
            self._objects.delete(request.key)
        return Answer(204)

    def _delete_several(self, request: Request) -> Answer:
        """DeleteObjects: how obstore deletes even one."""
        deleted = ""
        for key in _KEY.findall(request.body.decode()):
            self._objects.delete(unescape(key))
            deleted += f"<Deleted><Key>{key}</Key></Deleted>"
        return _xml(200, f'<DeleteResult xmlns="{_NAMESPACE}">{deleted}</DeleteResult>')

    def _refused(self, request: Request) -> Answer | None:
        """The answer to a write whose precondition does not hold: If-None-Match: * creates, If-Match replaces."""
        stored = self._objects.head(request.key)
        wanted = request.headers.get("if-match")
        if wanted is not None and stored is None:
            return _error(404, "NoSuchKey")
        if wanted is not None and stored is not None and not _names(wanted, stored):
            return _error(412, "PreconditionFailed")
        if request.headers.get("if-none-match") == "*" and stored is not None:
            return _error(412, "PreconditionFailed")
        return None


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    """A range of RFC 9110 §14.1.2, clamped to the object as S3 does; empty where nothing of it is there."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size


def _names(field: str, stored: Stored) -> bool:
    """Whether If-Match or If-None-Match means this object; S3 takes ETags without their quotes too."""
    return field == "*" or stored.etag.strip('"') in (part.strip().strip('"') for part in field.split(","))


def _error(status: int, code: str) -> Answer:
    return _xml(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")


def _xml(status: int, text: str) -> Answer:
    body = (_XML + text).encode()
    return Answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
