"""Character sets: from the bytes of a text value to Unicode, without ever raising.

Covers one replaced repertoire (ISO_IR 100, ISO_IR 192, GB18030, …) and ISO 2022 code extensions, where escape sequences
inside a value switch between the repertoires that (0008,0005) names. The tables of Defined Terms and escape sequences
are pydicom's; its decoder is not used because it warns of each odd value and takes any Python codec's name from a file.
Bytes that the repertoire does not define become U+FFFD.

Source: PS3.3 §C.12.1.1.2 (Specific Character Set), PS3.5 §6.1.2 (repertoires, code extensions).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_SPECIFIC_CHARACTER_SET_BYTES = 4096  # every Defined Term there is fits into a tenth of it

_ESC = b"\x1b"
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_DELIMITERS = re.compile(rb"[\t\n\f\r]")  # PS3.5 §6.1.2.5.3: back to the first repertoire
_DEFAULT_ENCODING = "iso8859"

COMMON_ENCODINGS = {
    "": _DEFAULT_ENCODING,
    "ISO_IR 6": _DEFAULT_ENCODING,
    "ISO_IR 100": "latin_1",
    "ISO_IR 192": "UTF8",
}
"""What nearly all files have, without pydicom's tables: to import those takes 0.2 s, in each process of an ingest."""

_DEFAULT_TERMS = ("", "ISO_IR 6", "ISO 2022 IR 6")

# Names that real files carry in place of a Defined Term. Never `codecs.lookup` of what a file says: Python also knows
# codecs that decompress, that execute escapes, or that take quadratic time.
_MISNAMED = {
    "LATIN1": "latin_1",
    "LATIN_1": "latin_1",
    "ISO8859-1": "latin_1",
    "ISO-8859-1": "latin_1",
    "ISO_8859-1": "latin_1",
    "ASCII": _DEFAULT_ENCODING,
    "US-ASCII": _DEFAULT_ENCODING,
    "UTF8": "UTF8",
    "UTF-8": "UTF8",
    "UTF_8": "UTF8",
    "GB2312": "GB2312",
    "SHIFT_JIS": "shift_jis",
    "WINDOWS-1252": "cp1252",
}


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """The repertoires in force for one data set, as Python codec names: the first, and those an escape may call.

    `is_default` tells that (0008,0005) adds nothing to the default repertoire.
    """

    encodings: tuple[str, ...]
    is_default: bool

    def decode(self, raw: bytes) -> str:
        """Decode a whole value, backslashes included: a byte 5Ch may be half of a character, so split afterwards."""
        if _ESC not in raw:
            return raw.decode(self.encodings[0], "replace")
        return "".join([self._decode_fragment(fragment) for fragment in _FRAGMENTS.findall(raw)])

    def _decode_fragment(self, fragment: bytes) -> str:
        try:
            return self._decode_escaped(fragment)
        except UnicodeDecodeError:
            return fragment.decode(self.encodings[0], "replace")

    def _decode_escaped(self, fragment: bytes) -> str:
        from pydicom.charset import CODES_TO_ENCODINGS, default_encoding, handled_encodings

        first = self.encodings[0]
        if not fragment.startswith(_ESC):
            return fragment.decode(first)
        escape = fragment[: 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3]
        encoding = CODES_TO_ENCODINGS.get(escape)
        if encoding is None or not (encoding in self.encodings or encoding == default_encoding):
            return fragment.decode(first, "replace")
        if encoding in handled_encodings:
            return fragment.decode(encoding)  # these codecs read the escape sequence themselves
        text = fragment[len(escape) :]
        delimiter = _DELIMITERS.search(text)
        if delimiter is None:
            return text.decode(encoding)
        return text[: delimiter.start()].decode(encoding) + text[delimiter.start() :].decode(first)


@lru_cache(maxsize=256)
def character_set(value: bytes) -> CharacterSet:
    """Read the value of (0008,0005). Unknown terms stand for the default repertoire, as pydicom has it."""
    terms = [term.strip(" \0") for term in value[:MAX_SPECIFIC_CHARACTER_SET_BYTES].decode("latin_1").split("\\")]
    if len(terms) == 1 and terms[0] in COMMON_ENCODINGS:
        return CharacterSet((COMMON_ENCODINGS[terms[0]],), is_default=terms[0] in _DEFAULT_TERMS)
    from pydicom.charset import STAND_ALONE_ENCODINGS

    if terms[0] in STAND_ALONE_ENCODINGS:
        terms = terms[:1]  # PS3.3 §C.12.1.1.2: these allow no code extensions
    else:
        terms = terms[:1] + [term for term in terms[1:] if term not in STAND_ALONE_ENCODINGS]
    encodings = tuple(dict.fromkeys(_encoding(term) for term in terms))
    return CharacterSet(encodings, is_default=all(term in _DEFAULT_TERMS for term in terms))


def _encoding(term: str) -> str:
    from pydicom.charset import default_encoding, python_encoding

    if term in python_encoding:
        return python_encoding[term]
    if re.match(r"ISO[^_]IR", term):
        return python_encoding.get("ISO_IR" + term[6:], default_encoding)
    if re.match(r"ISO.2022.IR.", term):
        return python_encoding.get("ISO 2022 IR " + term[12:], default_encoding)
    return _MISNAMED.get(term.upper(), default_encoding)


DEFAULT_CHARACTER_SET = character_set(b"")
