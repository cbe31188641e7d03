"""Links inside stored JSON: kept without a host, filled in when sent.

Stored rows write links as `codweb-root:/studies/…`; the address by which a client reached this server takes the place of
the token. A quote inside a JSON string is escaped, so `"codweb-root:/` can only begin a value; and a stored text that
begins so is written with an escaped slash by `storage.dicom.values`, so that only our own links do.
"""

ROOT = "codweb-root:"
_TOKEN = b'"' + ROOT.encode() + b"/"


def fill_root(json_bytes: bytes, root: str) -> bytes:
    """Replace the token by the service root, e.g. `http://127.0.0.1:8042/dicomweb` (no slash at its end)."""
    return json_bytes.replace(_TOKEN, b'"' + root.encode() + b"/")
