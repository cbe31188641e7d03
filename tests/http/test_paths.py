"""Addresses: hostile ones stop before storage; the links we make work for whoever asked, and all lead somewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from storage.bucket.memory import MemoryBucket
from tests.conftest import STORE_NAMES
from tests.http import ALONE, FILE, STORED, Attributes, entries_of, exact_status, keys_read, resources_of, searches_of
from tests.support.buckets import RecordingBucket
from tests.support.multipart import parts_of
from tests.support.server import ROOT, serving
from tests.support.stores import DATA, instance_path, loaded, series_key

ENTRY = entries_of("append")[0]
KEY = series_key(ENTRY)
BIG = next(entry for entry in entries_of("v2_raw") if entry["source"] == "emri_small.dcm")
"""Native pixels, more than one read of a header covers."""
METADATA = f"/dicomweb/{KEY.stem}/metadata"

HOSTILE_UIDS = {
    "a parent": "%2e%2e",
    "a parent, half encoded": ".%2E",
    "a parent, encoded twice": "%252e%252e",
    "this folder": "%2e",
    "a slash": "1.2%2F3",
    "a way out": "..%2f..%2fetc%2fpasswd",
    "a backslash": "..%5c..%5cetc",
    "a NUL": "1.2.3%00",
    "a NUL before an ending": "1.2.3%00.tar",
    "a line break": "1.2.3%0A",
    "a carriage return": "1.2.3%0d%0aX-Evil:1",
    "a blank": "1.2.3%20",
    "Arabic digits": "%D9%A1.%D9%A2",
    "fullwidth digits": "%EF%BC%91.%EF%BC%92",
    "bytes that are no UTF-8": "%ff%fe",
    "10 kB": "1." * 5000 + "1",
    "129 characters": "1" * 129,
    "a star": "*",
    "a percent sign": "%25",
    "a quote": "1.2'3",
    "an underscore": "1_2",
    "a semicolon": "1.2;3",
    "a colon": "file:1.2",
    "a tilde": "~root",
    "a key of the format": "1.2.tar%2f",
}


def hostile_paths(uid: str) -> Iterator[str]:
    """The UID at each level, and everywhere that a level is named."""
    study, series = KEY.study_uid, KEY.series_uid
    for path in (f"{uid}", f"{study}/series/{uid}", f"{study}/series/{series}/instances/{uid}"):
        yield f"/dicomweb/studies/{path}/metadata"
        yield f"/dicomweb/studies/{path}"
    yield f"/dicomweb/studies/{study}/series/{series}/instances/{uid}/frames/1"
    yield f"/dicomweb/studies/{study}/series/{series}/instances/{uid}/bulkdata/7FE00010"
    yield f"/dicomweb/studies/{uid}/series"
    yield f"/dicomweb/studies/{uid}/instances"
    yield f"/dicomweb/studies/{study}/series/{uid}/instances"


async def test_a_hostile_uid_in_a_path_is_400_before_any_storage(tmp_path: Path) -> None:
    """T16."""
    bucket = RecordingBucket(await loaded("append"))
    async with serving(bucket, tmp_path) as client:
        bucket.reset()
        for name, uid in HOSTILE_UIDS.items():
            for path in hostile_paths(uid):
                response = await client.get(path)

                assert response.status_code == 400, (name, path)
        assert bucket.requests == []


async def test_odd_but_harmless_uids_are_looked_up_and_not_there(tmp_path: Path) -> None:
    """T16: stores with hashed UIDs of letters exist; the strict rule is for what we are sent to keep."""
    bucket = RecordingBucket(await loaded("append"))
    async with serving(bucket, tmp_path) as client:
        for uid in ("-1", "-rf", "1.2.3.", ".1", "...", "0" * 128, "a" * 64, "1.2-3"):
            bucket.reset()
            for path in hostile_paths(uid):
                response = await client.get(path)

                assert response.status_code == 404 or response.json() == [], path
            for key in keys_read(bucket):
                assert key.startswith((f"studies/{uid}/series/", f"studies/{KEY.study_uid}/series/"))


async def test_dot_segments_lead_nowhere(tmp_path: Path) -> None:
    """T16: a path is taken as it is written; nothing is resolved."""
    bucket = RecordingBucket(await loaded("append"))
    async with serving(bucket, tmp_path) as client:
        bucket.reset()
        for path in (
            "/dicomweb/studies/../../../etc/passwd",
            "/../etc/passwd",
            "/dicomweb/..%2f..%2fetc%2fpasswd",
            f"/dicomweb/{KEY.stem}/../{KEY.series_uid}/metadata",
            f"/dicomweb/{KEY.stem}.tar",
            f"/dicomweb/{KEY.stem}/metadata.json",
            f"/dicomweb/{KEY.stem}/index.sqlite",
            f"/dicomweb/{KEY.stem}/.gradient.lock",
            f"/{KEY.tar}",
        ):
            assert await exact_status(client, path) in (400, 404), path
        assert not keys_read(bucket) & {KEY.metadata, KEY.tar, KEY.lock}


@pytest.mark.parametrize("spelling", ["/{}", "/{}/", "//{}", "/{}//"])
async def test_slashes_too_many_do_no_harm(tmp_path: Path, spelling: str) -> None:
    """G19."""
    async with serving(await loaded("append"), tmp_path) as client:
        for path in (*searches_of(KEY).values(), METADATA, f"{instance_path(ENTRY)}/frames/1"):
            assert await exact_status(client, spelling.format(path.removeprefix("/"))) == 200


FRAME_LISTS = [
    ("1", 200),
    ("1%2C1", 200),
    ("1,1,1", 200),
    (" 1 , 1 ", 200),
    ("01", 200),
    ("0", 400),
    ("-1", 400),
    ("1-3", 400),
    ("1-1000000", 400),
    ("1,,1", 400),
    (",", 400),
    ("1,", 400),
    ("1.0", 400),
    ("1e3", 400),
    ("0x1", 400),
    ("%D9%A1", 400),
    ("all", 400),
    ("2", 404),
    ("1,2", 404),
    ("999999999", 404),
    ("9" * 30, 400),
    (",".join("1" * 10_000), 200),
    (",".join("1" * 10_001), 400),
    (",".join("1" * 30_000), 400),
]


async def test_a_frame_list_is_bounded_and_read_strictly(tmp_path: Path) -> None:
    """F1, T25."""
    async with serving(await loaded("append"), tmp_path) as client:
        for frame_list, status in FRAME_LISTS:
            response = await client.get(f"{instance_path(ENTRY)}/frames/{frame_list}", headers=STORED)

            assert response.status_code == status, frame_list[:100]


@pytest.mark.parametrize(
    ("settings", "headers", "root"),
    [
        ({}, {"host": "pacs.example.org:9000"}, "http://pacs.example.org:9000/dicomweb"),
        ({}, {"host": "PACS.example.org:80"}, "http://pacs.example.org/dicomweb"),
        ({}, {"host": "[::1]:8042"}, "http://[::1]:8042/dicomweb"),
        ({"public_url": "https://pacs.example.org/wado/"}, {"host": "inner:8042"}, "https://pacs.example.org/wado"),
        (
            {"trusted_proxies": "127.0.0.0/8"},
            {"host": "inner:8042", "x-forwarded-proto": "https", "x-forwarded-host": "pacs.example.org"},
            "https://pacs.example.org/dicomweb",
        ),
        (
            {"trusted_proxies": "127.0.0.0/8"},
            {"host": "inner", "forwarded": 'proto=https;host="pacs.example.org:8443"', "x-forwarded-prefix": "/pacs"},
            "https://pacs.example.org:8443/pacs/dicomweb",
        ),
        ({}, {"host": "a.example:1", "x-forwarded-host": "evil.example"}, "http://a.example:1/dicomweb"),
        ({}, {"host": "a.example:1", "forwarded": "host=evil.example"}, "http://a.example:1/dicomweb"),
    ],
)
async def test_every_link_begins_with_the_root_by_which_the_client_came(
    tmp_path: Path, settings: dict[str, str], headers: dict[str, str], root: str
) -> None:
    """G18, viewers' rules 18 and 19, T20: absolute, without `?`, and never what a stranger's header says."""
    async with serving(await loaded("append"), tmp_path, wait=True, **settings) as client:
        for coding in ("identity", "zstd"):
            own = {**headers, "accept-encoding": coding}
            links = [link for each in (await client.get(METADATA, headers=own)).json() for link in links_in(each)]
            for path in searches_of(KEY).values():
                links += [link for row in (await client.get(path, headers=own)).json() for link in links_in(row)]
            for name, path in resources_of(ENTRY).items():
                if "metadata" not in name:
                    response = await client.get(path, headers=own)
                    links += [
                        part.headers["content-location"]
                        for part in (
                            parts_of(response) if "multipart" in response.headers["content-type"] else [response]
                        )
                    ]

            assert len(links) > 20
            for link in links:
                assert link.startswith(f"{root}/studies/{KEY.study_uid}")
                assert "?" not in link


def links_in(attributes: Attributes) -> Iterator[str]:
    """RetrieveURL and every BulkDataURI, nested ones too."""
    for tag, element in attributes.items():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"]
        for value in element.get("Value", ()):
            if element["vr"] == "SQ" and value is not None:
                yield from links_in(value)
            elif tag == "00081190":
                yield value


FORBIDDEN_HOSTS = [
    "evil.example", "pacs.example.org.evil.example", "evilpacs.example.org", "", "a b", 'x"><script>', "a/b", "a@b", "a:99999",
    "pacs.example.org:8042,evil.example", "[::1", "a\\b", "*", "pacs.example.org#x", "pacs.example.org?x",
]  # fmt: skip


async def test_a_host_that_is_not_allowed_gets_400_and_no_link(tmp_path: Path) -> None:
    """T20: links end in caches."""
    async with serving(await loaded("append"), tmp_path, allowed_hosts="pacs.example.org, *.ward.example") as client:
        for allowed in ("pacs.example.org", "pacs.example.org:8042", "a.ward.example"):
            assert (await client.get(METADATA, headers={"host": allowed})).status_code == 200
        for path in (METADATA, *searches_of(KEY).values(), *resources_of(ENTRY).values()):
            for host in FORBIDDEN_HOSTS if path == METADATA else FORBIDDEN_HOSTS[:1]:
                response = await client.get(path, headers={"host": host})

                assert response.status_code == 400, host
                assert host not in response.text or not host


SHORT_TABLE = "syn_j2k_bot_short.dcm"
"""Of its four frames one is told differently by its table and its fragments: not everything of it can be served."""


@pytest.mark.parametrize("store", [store for store in STORE_NAMES if entries_of(store)])
async def test_every_link_in_metadata_of_every_store_leads_to_its_value(tmp_path: Path, store: str) -> None:
    """B1: 200 with what the link names, or 406 where a de-identified store withholds it; never a dead end."""
    bucket = await loaded(store)
    doubtful = {entry["key"] for entry in entries_of(store) if entry["problems"] or entry["source"] == SHORT_TABLE}
    followed: set[str] = set()
    async with serving(bucket, tmp_path) as client:
        for depth in ("quick", "deep"):
            for key in {series_key(entry) for entry in entries_of(store)}:
                if depth == "deep":
                    await client.archive.shelf.get(key, depth="deep")
                for attributes in (await client.get(f"/dicomweb/{key.stem}/metadata")).json():
                    if attributes["00080018"]["Value"][0] in doubtful:
                        continue
                    for link in {*links_in(attributes)} - followed:
                        followed.add(link)
                        response = await client.get(link, headers={"accept": "*/*"})

                        assert response.status_code in ((200, 406) if store == "deid" else (200,)), (
                            link,
                            response.text,
                        )
                        assert response.content


RANGES = {
    "bytes=0-": (0, None),
    "bytes=0-0": (0, 1),
    "bytes=10-19": (10, 20),
    "bytes=100-": (100, None),
    "bytes=-7": (-7, None),
    "bytes=0-99999999": (0, None),
    "bytes=-99999999": (0, None),
    " bytes = 5 - 6 ": (5, 7),
}
IGNORED_RANGES = [
    "bytes=3-1",
    "bytes=0-1,5-6",
    "items=0-1",
    "bytes=a-b",
    "bytes=-",
    "bytes",
    "",
    "bytes=0-1;x",
    "bytes=+1-2",
]


@pytest.mark.parametrize("name", ["frame", "file", "bulk data", "long bulk data"])
async def test_single_parts_are_given_out_by_ranges(tmp_path: Path, name: str) -> None:
    """F9, B6, G16; RFC 9110 §14. Progressive viewers fetch the first 64 KiB of a frame, then the rest."""
    store = "v2_raw" if name == "long bulk data" else "append"
    entry = BIG if store == "v2_raw" else ENTRY
    path, headers = {
        "frame": (f"{instance_path(entry)}/frames/1", ALONE),
        "file": (instance_path(entry), FILE),
    }.get(name, (f"{instance_path(entry)}/bulkdata/7FE00010", ALONE))
    async with serving(await loaded(store), tmp_path) as client:
        whole = await client.get(path, headers=headers)
        assert whole.headers["accept-ranges"] == "bytes"
        body, length = whole.content, len(whole.content)
        for header, (start, stop) in RANGES.items():
            response = await client.get(path, headers={**headers, "range": header})

            expected = body[start:stop]
            first = length + start if start < 0 else start
            assert response.status_code == 206, header
            assert response.content == expected
            assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{length}"
            assert response.headers["content-length"] == str(len(expected))
            assert response.headers["etag"] == whole.headers["etag"]
            assert response.headers["content-type"] == whole.headers["content-type"]
        for header in IGNORED_RANGES:
            response = await client.get(path, headers={**headers, "range": header})
            assert (response.status_code, response.content) == (200, body), header
        for header in (f"bytes={length}-", f"bytes={length + 5}-{length + 9}", "bytes=-0"):
            response = await client.get(path, headers={**headers, "range": header})
            assert response.status_code == 416
            assert response.headers["content-range"] == f"bytes */{length}"


@pytest.mark.parametrize("name", ["frame", "file", "bulk data"])
async def test_if_range_joins_no_two_representations(tmp_path: Path, name: str) -> None:
    """RFC 9110 §13.1.5: a resumed download of a series that was rewritten begins anew."""
    path, headers = {
        "frame": (f"{instance_path(ENTRY)}/frames/1", ALONE),
        "file": (instance_path(ENTRY), FILE),
        "bulk data": (f"{instance_path(ENTRY)}/bulkdata/7FE00010", ALONE),
    }[name]
    async with serving(await loaded("append"), tmp_path) as client:
        etag = (await client.get(path, headers=headers)).headers["etag"]
        asked = {**headers, "range": "bytes=10-19"}

        same = await client.get(path, headers={**asked, "if-range": etag})
        others = [
            await client.get(path, headers={**asked, "if-range": other})
            for other in ('"other"', f"W/{etag}", "Sat, 21 Nov 2026 00:00:00 GMT", "")
        ]
        head = await client.head(path, headers=asked)

        assert same.status_code == 206
        assert [response.status_code for response in others] == [200] * 4
        assert (head.status_code, "content-range" in head.headers) == (200, False)


async def test_a_range_of_bulk_data_reads_no_more_than_the_range(tmp_path: Path) -> None:
    bucket = RecordingBucket(await loaded("v2_raw"))
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(series_key(BIG), depth="deep")
        path = f"{instance_path(BIG)}/bulkdata/7FE00010"
        whole = await client.get(path, headers=ALONE)
        assert len(whole.content) > 80_000
        bucket.reset()

        response = await client.get(path, headers={**ALONE, "range": "bytes=100-199"})

        assert response.content == whole.content[100:200]
        assert bucket.bytes_read <= 64 * 1024 + 100


async def test_bulk_data_is_what_pydicom_reads(tmp_path: Path) -> None:
    """B1, B4, viewers' rule 21: bare bytes or one part; Content-Location is the link of the metadata."""
    expected = dcmread(DATA / "p10" / BIG["source"]).PixelData
    async with serving(await loaded("v2_raw"), tmp_path) as client:
        [attributes] = (await client.get(f"{instance_path(BIG)}/metadata")).json()
        link = attributes["7FE00010"]["BulkDataURI"]
        bare = await client.get(link, headers={"accept": "application/octet-stream"})
        anything = await client.get(link, headers={"accept": "*/*"})
        boxed = await client.get(link, headers={"accept": 'multipart/related; type="application/octet-stream"'})

    [part] = parts_of(boxed)
    assert bare.content == anything.content == part.body == expected
    assert bare.headers["content-location"] == part.headers["content-location"] == link
    assert link == f"{ROOT}/{series_key(BIG).stem}/instances/{BIG['key']}/bulkdata/7FE00010"


async def test_ways_of_asking_are_remembered_in_bounded_memory(tmp_path: Path) -> None:
    """Strangers choose these headers: neither many ways nor long ones may fill the memory."""
    async with serving(MemoryBucket(), tmp_path) as client:
        kept = client.services.asked
        for number in range(1100):
            await client.get("/dicomweb/studies", headers={"Accept": f"application/dicom+json;n={number}"})
            assert len(kept) <= 1024
        kept.clear()
        await client.get("/dicomweb/studies", headers={"User-Agent": "x" * 5000})
        await client.get(f"/dicomweb/studies?PatientName={'x' * 300}")

        assert not kept
