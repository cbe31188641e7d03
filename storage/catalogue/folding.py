"""Text as it is compared: without case, accents and compatibility forms.

What folds alike matches alike, in the values of the catalogue and in the text that is searched for; so both go through
`fold` and nothing else does the same by other means (PS3.4 §C.2.2.2.1 leaves case and accents of PN to the server).
"""

import unicodedata

_CONTROLS_TO_SPACE = dict.fromkeys([*range(0x20), 0x7F, 0x85, 0x2028, 0x2029], " ")


def fold(text: str) -> str:
    """Fold case and accents: `Müller`, `MULLER` and `mu\u0308ller` become `muller`.

    Control characters become blanks (the catalogue separates values by a line feed), lone surrogates U+FFFD.
    """
    if text.isascii():
        folded = text.lower()
        return folded if folded.isprintable() else folded.translate(_CONTROLS_TO_SPACE)
    decomposed = unicodedata.normalize("NFKD", storable(text))
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    # Casefolding may decompose anew, and Hangul must be put together again, lest `?` stand for a third of a syllable.
    folded = unicodedata.normalize("NFKD", bare.casefold())
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", bare).translate(_CONTROLS_TO_SPACE)


def storable(text: str) -> str:
    """The text with lone surrogates replaced: they exist in JSON and in Python, and in no database."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
