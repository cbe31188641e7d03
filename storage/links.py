"""Links inside stored JSON: kept without a host, filled in when sent.

Stored rows write links as `codweb-root:/studies/…`; the address by which a client reached this server replaces the
scheme-like token. JSON escapes every quote inside a string, so `"codweb-root:/` can only be the start of a value, and
only our own links start so: values of data sets that do are escaped at build time by nobody, hence the odd name.
"""

ROOT = "codweb-root:"
_TOKEN = b'"' + ROOT.encode() + b"/"


def fill_root(json_bytes: bytes, root: str) -> bytes:
    """Replace the token by the service root, e.g. `http://127.0.0.1:8042/dicomweb` (no slash at its end)."""
    return json_bytes.replace(_TOKEN, b'"' + root.encode() + b"/")
