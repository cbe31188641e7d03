"""`codweb serve --workers N`: one process that accepts, N that answer, and one that keeps catalogue and indexes.

supervisor.py    the parent: accepts connections, hands them out, starts again what died, ends all in peace
worker.py        answers; reads only
maintenance.py   syncs the catalogue and deepens indexes, for all
opened.py        what workers tell the maintenance process: which series somebody opened
board.py         what each process says of itself: memory and connections
crew.py          the others, as one process sees them
"""
