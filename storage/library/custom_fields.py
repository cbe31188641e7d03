"""Fields of one's own at the top level of metadata.json: a mapping of JSON values that the next commit writes."""

import json
from collections.abc import Callable, Iterator, MutableMapping
from io import UnsupportedOperation

import msgspec

from storage.ingest.stored import ORIGINALS_FIELD
from storage.library.pending import Pending
from storage.writing.change import RESERVED_FIELDS

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


class CustomFields(MutableMapping[str, JsonValue]):
    """Reading answers a copy: set a field again to change what is inside it."""

    def __init__(self, pending: Callable[[], Pending], *, is_writable: bool) -> None:
        self._pending = pending
        self._is_writable = is_writable

    def __getitem__(self, name: str) -> JsonValue:
        raw = self._raw().get(name)
        if raw is None:
            raise KeyError(name)
        value: JsonValue = json.loads(bytes(raw))
        return value

    def __setitem__(self, name: str, value: JsonValue) -> None:
        """Raises: ValueError (the name belongs to the format, NaN), TypeError (no JSON), UnsupportedOperation."""
        self._check(name)
        self._pending().fields[name] = msgspec.Raw(json.dumps(value, allow_nan=False).encode("ascii"))

    def __delitem__(self, name: str) -> None:
        """Raises: KeyError, ValueError, UnsupportedOperation."""
        self._check(name)
        if name not in self._raw():
            raise KeyError(name)
        self._pending().fields[name] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw())

    def __len__(self) -> int:
        return len(self._raw())

    def __repr__(self) -> str:
        return f"CustomFields({dict(self)!r})"

    def _check(self, name: str) -> None:
        if not self._is_writable:
            raise UnsupportedOperation('the series is open for reading: open it with mode="a" to change it')
        if name in RESERVED_FIELDS or name == ORIGINALS_FIELD:
            raise ValueError(f'the field "{name}" of metadata.json belongs to the format: choose another name')

    def _raw(self) -> dict[str, msgspec.Raw]:
        document = self._pending().stored.document
        hidden = RESERVED_FIELDS | {ORIGINALS_FIELD}
        stored = {} if document is None else {name: raw for name, raw in document.custom.items() if name not in hidden}
        changed = {name: raw for name, raw in self._pending().fields.items() if raw is not None}
        gone = {name for name, raw in self._pending().fields.items() if raw is None}
        return {name: raw for name, raw in (stored | changed).items() if name not in gone}
