"""Retrieve instances: PS3.18 §10.4.1.1.1. Stored P10 files, bit for bit, at study, series and instance level."""

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotAcceptable
from app.multipart import Multipart, PartHead
from app.negotiation import DICOM, InstanceForm, choose_instances
from app.responses import REVALIDATE, Buffer, entity_tag, not_modified, single_part, streamed
from app.services import accept_of, instance_of, root_of, series_of, services, study_of
from storage.archive import Archive
from storage.archive.instances import SeriesFiles, StoredFile
from storage.keys import SeriesKey


async def retrieve_study(request: Request) -> Response:
    """All instances of a study as one multipart."""
    keys = await services(request).archive.series_of_study(study_of(request))
    return await _many(request, keys)


async def retrieve_series(request: Request) -> Response:
    """All instances of a series as one multipart, in the order in which they lie in the tar."""
    return await _many(request, [series_of(request)])


async def retrieve_instance(request: Request) -> Response:
    """One instance, as a multipart of one part or alone."""
    key, instance_uid = instance_of(request)
    accept, strict = accept_of(request), services(request).settings.strict
    choose_instances(accept, single=True, strict=strict)  # 406 before anything is read
    file = await services(request).archive.instances.file(key, instance_uid, unread=request.method == "HEAD")
    syntax = file.transfer_syntax_uid
    form = choose_instances(accept, single=True, strict=strict, stored_syntax_uid=syntax)
    etag = entity_tag(file.identity, form.multipart, weak=form.multipart)
    headers = {"etag": etag, "cache-control": REVALIDATE, "vary": "Accept"}
    unchanged = not_modified(request, etag, {"vary": "Accept"})
    if unchanged is not None:
        return unchanged
    location = f"{root_of(request)}/{key.stem}/instances/{instance_uid}"
    content_type = f"{DICOM}; transfer-syntax={syntax}"
    length = file.instance.range.length
    if form.multipart:
        multipart = Multipart(DICOM, syntax)
        head = PartHead(content_type, location, length)
        headers["content-type"] = multipart.content_type
        return await streamed(request, multipart.stream(_one(head, file)), headers, multipart.content_length([head]))
    headers |= {"content-type": content_type, "content-location": location}
    if file.is_small:
        headers["accept-ranges"] = "bytes"
    if file.data is not None:
        return single_part(request, file.data, headers)
    return await streamed(request, file.chunks, headers, length)


async def _many(request: Request, keys: Sequence[SeriesKey]) -> Response:
    form = choose_instances(accept_of(request), single=False, strict=services(request).settings.strict)
    archive, root = services(request).archive, root_of(request)
    opened = await archive.instances.of_series(keys)
    heads = [_head(series, position, form, root) for series in opened for position in range(len(series.instances))]
    etag = entity_tag(tuple(series.identity for series in opened), weak=True)
    unchanged = not_modified(request, etag, {"vary": "Accept"})
    if unchanged is not None:
        return unchanged
    syntaxes = {instance.transfer_syntax_uid for series in opened for instance in series.instances}
    multipart = Multipart(DICOM, syntaxes.pop() if len(syntaxes) == 1 else None)
    headers = {
        "content-type": multipart.content_type, "etag": etag, "cache-control": REVALIDATE, "vary": "Accept"
    }  # fmt: skip
    parts = _parts(archive, opened, heads)
    return await streamed(request, multipart.stream(parts), headers, multipart.content_length(heads))


def _head(series: SeriesFiles, position: int, form: InstanceForm, root: str) -> PartHead:
    instance = series.instances[position]
    syntax = instance.transfer_syntax_uid
    assert syntax is not None  # a deep index has proven them all
    if not form.accepts_syntax(syntax):
        raise NotAcceptable(
            f"instance {instance.uid} is stored as {syntax} and not transcoded; ask with transfer-syntax=*",
            [f'multipart/related; type="{DICOM}"; transfer-syntax=*'],
        )
    location = f"{root}/{instance.key.stem}/instances/{instance.uid}"
    return PartHead(f"{DICOM}; transfer-syntax={syntax}", location, instance.range.length)


async def _parts(
    archive: Archive, opened: Sequence[SeriesFiles], heads: Sequence[PartHead]
) -> AsyncIterator[tuple[PartHead, AsyncIterator[Buffer]]]:
    waiting = iter(heads)
    for series in opened:
        async for file in archive.instances.files(series):
            yield next(waiting), file.chunks


async def _one(head: PartHead, file: StoredFile) -> AsyncIterator[tuple[PartHead, AsyncIterator[Buffer]]]:
    yield head, file.chunks
