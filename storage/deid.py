"""De-identified (hashed-UID) stores: no UI value of the source files leaves.

Such a store names studies, series and instances by hashed UIDs, while the metadata and the P10 bytes keep the original
ones. Entry UIDs of the study are mapped to the store's own; any other instance-like UID becomes `2.25.` + a keyed hash,
the same for the same UID, so that references within the store still match (PS3.15 §E.1.1 "replaced" UIDs).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence

STANDARD_ROOT = "1.2.840.10008."
"""UIDs below the standard's own root name SOP classes, syntaxes and the like: they identify nobody."""
_BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_UID_LIKE = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")
_LONGEST_INNOCENT = 23
"""Dotted numbers longer than this, inside text, are taken for UIDs; shorter ones are versions and addresses."""
_FEWEST_DOTS = 3
_SHORTEST_TELLING = 16
"""A value of a UI attribute is looked for inside text if it has so many dots, as UIDs do, or so many characters."""
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
        scrubbed = self._scrubbed(document, [uid for uid in originals if _is_telling(uid)])
        return json.dumps(scrubbed, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    def _scrubbed(self, value: JsonValue, originals: Sequence[str]) -> JsonValue:
        """Every text without original UIDs; numbers stay as they are, and so do links, which are ours."""
        if isinstance(value, str):
            text = _UID_LIKE.sub(lambda match: self._in_text(match[0], originals), value)
            for uid in originals:
                if not _UID_LIKE.fullmatch(uid):
                    text = text.replace(uid, self(uid))
            return text
        if isinstance(value, list):
            return [self._scrubbed(each, originals) for each in value]
        if isinstance(value, dict):
            return {
                name: each if name == "BulkDataURI" else self._scrubbed(each, originals) for name, each in value.items()
            }
        return value

    def _in_text(self, uid: str, originals: Sequence[str]) -> str:
        if uid in self._outputs:
            return uid
        is_innocent = len(uid) <= _LONGEST_INNOCENT and not any(original in uid for original in originals)
        return uid if is_innocent and uid not in self._known else self(uid)

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
                original = value.strip(" \0")
                replacement = self(original)
                if replacement != original:
                    originals.add(original)
                mapped.append(replacement)
            else:
                mapped.append(value)
        return {"Value": mapped}


def _is_telling(uid: str) -> bool:
    """Whether a text that holds these characters names somebody: what a careless writer puts into a UI may be `1.2`."""
    return uid.count(".") >= _FEWEST_DOTS or len(uid) >= _SHORTEST_TELLING


def may_embed_uids(vr: str, tag: int) -> bool:
    """Whether a value of this kind is withheld in a de-identified store."""
    return vr == "UN" or (tag >> 16) % 2 == 1


def _items(value: JsonValue) -> Iterable[dict[str, JsonValue]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()
