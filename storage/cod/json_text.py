"""Loose JSON made strict: what Python's `json` module writes and RFC 8259 forbids.

The published writer stores `NaN`, `Infinity` and `-Infinity` as bare tokens, and escapes of lone surrogates where a
value could not be decoded. Both are mended on the text, so that every other byte, and each number, stays as it is.
Sources: RFC 8259 §6 (numbers), §8.2 (surrogates); PS3.18 §F.2.3 (values that are not finite have no JSON number).
"""

import re

import msgspec

# One alternative per kind of token; a string without an end runs to the end, so that each byte is looked at once.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?\bInfinity\b|\bNaN\b', re.DOTALL)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def strict_json(text: bytes) -> bytes:
    """`text` as JSON without insignificant whitespace; tokens that are no JSON mended, numbers verbatim.

    Raises:
        ValueError: it is no JSON (or no UTF-8), or nested deeper than the interpreter allows.
    """
    if not text.isascii():
        text.decode()  # msgspec skips over strings without looking at their bytes; UnicodeDecodeError is a ValueError
    try:
        try:
            return msgspec.json.format(text, indent=-1)
        except msgspec.DecodeError:
            return msgspec.json.format(mend_tokens(text), indent=-1)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def mend_tokens(text: bytes) -> bytes:
    """Turn `NaN`, `Infinity`, `-Infinity` into strings, and escapes of lone surrogates into U+FFFD."""
    return _TOKEN.sub(_mend_token, text)


def _mend_token(match: re.Match[bytes]) -> bytes:
    token = match[0]
    if not token.startswith(b'"'):
        return b'"' + token + b'"'
    if b"\\u" not in token:
        return token
    return _ESCAPE.sub(lambda escape: b"\\ufffd" if escape[1] is not None else escape[0], token)
