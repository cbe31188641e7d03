"""The contract as a whole: any sequence of operations, beside a dictionary."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.bucket import Bucket
from storage.errors import ObjectExists, ObjectNotFound
from storage.ranges import ByteRange
from tests.bucket.contract.place import ContractBase, in_pieces, stored, streamed

_VERBS = ["write", "upload", "copy", "create", "replace", "delete", "read", "list"]
_FOLDERS = ["", "a/", "a/b/", "a.b/", "a-/", "é/"]
_NAMES = ["f", "f.tar", "f0", ".f", "é.f"]
_KEYS = st.builds(str.__add__, st.sampled_from(_FOLDERS), st.sampled_from(_NAMES))
_BODIES = st.binary(max_size=40)
_TEXTS = st.one_of(st.just(""), _KEYS, st.sampled_from([*_FOLDERS, "a", "a/b", "a.", "b", "a/bb"]))


class ModelContract(ContractBase):
    """Every verb, in any order."""

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    async def test_a_bucket_behaves_like_a_dictionary(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        place = self.make_place(tmp_path_factory.mktemp("bucket"))
        model: dict[str, bytes] = {}
        try:
            for _ in range(data.draw(st.integers(1, 12), label="steps")):
                await _step(place.bucket, model, data)
            assert dict(zip(place.keys(), map(place.get, place.keys()), strict=True)) == model
        finally:
            await place.bucket.close()


async def _step(bucket: Bucket, model: dict[str, bytes], data: st.DataObject) -> None:
    """One operation on both; the model is a dictionary and plain slices."""
    verb = data.draw(st.sampled_from(_VERBS), label="verb")
    key = data.draw(_KEYS, label="key")
    body = data.draw(_BODIES, label="body")
    if verb == "list":
        after = data.draw(_TEXTS, label="after")
        prefix = data.draw(_TEXTS, label="prefix")
        infos = [(info.key, info.size) async for info in bucket.list(prefix, after=after)]
        matching = [name for name in model if name.startswith(prefix) and name.encode() > after.encode()]
        assert infos == [(name, len(model[name])) for name in sorted(matching, key=str.encode)]
    elif verb == "read" and key in model:
        start = data.draw(st.integers(0, len(model[key])), label="start")
        stop = data.draw(st.integers(start, len(model[key])), label="stop")
        assert bytes((await bucket.read(key, ByteRange(start, stop))).data) == model[key][start:stop]
        assert await streamed(bucket, key, ByteRange(start, stop), 7) == model[key][start:stop]
    elif verb in ("read", "replace") and key not in model:
        with pytest.raises(ObjectNotFound):
            await (bucket.read(key) if verb == "read" else bucket.replace(key, body, version="1"))
    elif verb == "replace":
        await bucket.replace(key, body, version=(await bucket.head(key)).version)
        model[key] = body
    elif verb == "create" and key in model:
        with pytest.raises(ObjectExists):
            await bucket.create(key, body)
    elif verb == "copy" and model:
        source = data.draw(st.sampled_from(sorted(model)), label="source")
        start = data.draw(st.integers(0, len(model[source])), label="start")
        stop = data.draw(st.integers(start, len(model[source])), label="stop")
        await bucket.upload(key, in_pieces([body[:5], await stored(bucket, source, start, stop), body[5:]]))
        model[key] = body[:5] + model[source][start:stop] + body[5:]
    elif verb == "delete":
        await bucket.delete(key)
        model.pop(key, None)
    else:
        match verb:
            case "write":
                await bucket.write(key, body)
            case "upload":
                await bucket.upload(key, in_pieces([body[:5], body[5:]]))
            case _:
                await bucket.create(key, body)
        model[key] = body
