"""De-identified (hashed-UID) stores: no UI value of the source files leaves.

Such a store names studies, series and instances by hashed UIDs, while the metadata and the P10 bytes keep the original
ones. Entry UIDs of the study are mapped to the store's own; any other instance-like UID becomes `2.25.` + a keyed hash,
the same for the same UID, so that references within the store still match (PS3.15 §E.1.1 "replaced" UIDs).
"""

import hashlib
import json
import re
from collections.abc import Iterable

STANDARD_ROOT = "1.2.840.10008."
"""UIDs below the standard's own root name SOP classes, syntaxes and the like: they identify nobody."""
_BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_UID_LIKE = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")
_LONGEST_INNOCENT = 23
"""Dotted numbers longer than this, inside text, are taken for UIDs; shorter ones are versions and addresses."""
JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


class UidMap:
    """Original UID → the UID that the outside world may see."""

    def __init__(self, known: dict[str, str], secret: bytes) -> None:
        """`known`: the store's own pairs, of all series of the study."""
        self._known = known
        self._outputs = set(known.values())
        self._secret = secret

    def __call__(self, uid: str) -> str:
        if not uid or (uid + ".").startswith(STANDARD_ROOT):
            return uid
        mapped = self._known.get(uid)
        if mapped is None:
            digest = hashlib.blake2b(uid.encode(), key=self._secret, digest_size=16).digest()
            mapped = self._known[uid] = f"2.25.{int.from_bytes(digest, 'big')}"
            self._outputs.add(mapped)
        return mapped

    def redact(self, attributes: bytes) -> bytes:
        """A DICOM JSON object with every original UID replaced, also inside text, and opaque values left out.

        UN and private binary values may embed UIDs that nothing can find: they lose their value (PS3.15 §E.3.10).
        """
        document = json.loads(attributes)
        originals: set[str] = set()
        self._map_dataset(document, originals)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        for uid in sorted(originals, key=len, reverse=True):
            text = text.replace(uid, self(uid))
        return _UID_LIKE.sub(self._in_text, text).encode("utf-8", "replace")

    def _in_text(self, match: re.Match[str]) -> str:
        uid = match[0]
        if uid in self._outputs or (uid not in self._known and len(uid) <= _LONGEST_INNOCENT):
            return uid
        return self(uid)

    def _map_dataset(self, dataset: dict[str, JsonValue], originals: set[str]) -> None:
        for tag, element in dataset.items():
            assert isinstance(element, dict)  # Annex F: the normaliser lets nothing else through
            vr = element.get("vr")
            if vr == "UI":
                element.update(self._mapped_values(element.get("Value"), originals))
            elif vr == "SQ":
                for item in _items(element.get("Value")):
                    self._map_dataset(item, originals)
            elif vr == "UN" or (vr in _BINARY_VRS and int(tag[:4], 16) % 2 == 1):
                element.pop("InlineBinary", None)
                element.pop("BulkDataURI", None)

    def _mapped_values(self, values: JsonValue, originals: set[str]) -> dict[str, JsonValue]:
        if not isinstance(values, list):
            return {}
        mapped: list[JsonValue] = []
        for value in values:
            if isinstance(value, str):
                replacement = self(value)
                if replacement != value:
                    originals.add(value)
                mapped.append(replacement)
            else:
                mapped.append(value)
        return {"Value": mapped}


def may_embed_uids(vr: str, tag: int) -> bool:
    """Whether a value of this kind is withheld in a de-identified store."""
    return vr == "UN" or (tag >> 16) % 2 == 1


def _items(value: JsonValue) -> Iterable[dict[str, JsonValue]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()
