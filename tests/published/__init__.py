"""The published COD library beside codweb on one datastore: each reads and continues what the other wrote."""
