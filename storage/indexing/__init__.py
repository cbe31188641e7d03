"""Builds series indexes: quick from metadata.json alone, deep from the P10 headers in the tar.

draft.py    what both collect, and how it becomes a file
quick.py    stored JSON, normalised; nothing proven
deep.py     headers re-read by ranges: faithful, proven, located
header_reader.py   drives a parser over ranges of the tar
indexer.py  decides which, once per series, whoever asks
"""
