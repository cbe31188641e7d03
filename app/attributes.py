"""Names of attributes in a query: eight hex digits, a keyword of PS3.6, or a dotted path of them (PS3.18 §8.3.4.1).

Keywords are case-sensitive in the standard; one that is written in another case is understood all the same. Everything
is looked up in the dictionary, so what leaves this module is a number and never a stranger's text.
"""

import re
from functools import cache

from pydicom.datadict import get_entry, keyword_dict

from storage.catalogue.query import Tag, TagPath

MAX_DEPTH = 10
"""Most members of a dotted path; the deepest attribute that PS3.18 asks for has three."""

MAX_NAME_CHARS = 512

_TAG = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_WORD = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", re.ASCII)


def parse_path(name: str) -> TagPath | None:
    """The tags from the data set down to the attribute; None unless each is in the dictionary, and all but the last
    are sequences."""
    if len(name) > MAX_NAME_CHARS:
        return None
    path: list[Tag] = []
    members = name.split(".")
    for member in members:
        tag = _tag_of(member)
        if tag is None or (len(path) < len(members) - 1 and _entry_vr(tag) != "SQ"):
            return None
        path.append(tag)
    return tuple(path) if len(path) <= MAX_DEPTH else None


def is_attribute_like(name: str) -> bool:
    """Whether a name means to be an attribute: hex digits or CamelCase throughout. No parameter of a client is."""
    return len(name) <= MAX_NAME_CHARS and all(
        _TAG.fullmatch(part) or _WORD.fullmatch(part) for part in name.split(".")
    )


def is_private(name: str) -> bool:
    """Whether an attribute-like name has a private tag in it: eight hex digits with an odd group (PS3.5 §7.8)."""
    return any(_TAG.fullmatch(part) and int(part[:4], 16) % 2 for part in name.split("."))


def vr_of(path: TagPath) -> str:
    """The VR of an attribute of the dictionary; the first, where it depends on the data set (`US or SS`)."""
    vr = _entry_vr(path[-1])
    return "UN" if vr is None else vr.partition(" ")[0]


def path_text(path: TagPath) -> str:
    """How an attribute is written in messages: `00400275.00401001`."""
    return ".".join(f"{tag:08X}" for tag in path)


def _tag_of(member: str) -> Tag | None:
    if _TAG.fullmatch(member):
        tag = int(member, 16)
        return tag if _entry_vr(tag) is not None else None
    return keyword_dict.get(member) or _tags_by_lower_case().get(member.lower()) if member else None


def _entry_vr(tag: Tag) -> str | None:
    """The VR of the dictionary; None for a tag that it lacks or that is no attribute (item delimiters)."""
    try:
        vr = get_entry(tag)[0]
    except KeyError:
        return None
    return None if vr == "NONE" else vr


@cache
def _tags_by_lower_case() -> dict[str, Tag]:
    return {keyword.lower(): tag for keyword, tag in keyword_dict.items() if keyword}
