"""Strings in a spool: given back as they were, in any order, in bounded memory."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import spool as module
from storage.spool import Spool


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=12), st.integers(0, 120))
def test_every_string_comes_back_wherever_it_is_kept(strings: list[list[bytes]], memory: int) -> None:
    with pytest.MonkeyPatch.context() as patch, Spool() as spool:
        patch.setattr(module, "MEMORY_BYTES", memory)
        places = [spool.put(iter(chunks)) for chunks in strings]

        for number in [*range(len(strings))][::-1]:
            assert b"".join(spool.get(places[number])) == b"".join(strings[number])
            assert places[number][1] == sum(map(len, strings[number]))


def test_a_string_beyond_the_memory_is_never_held_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 100)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 64)
    alive = 0

    def chunks() -> Iterator[bytes]:
        for number in range(50):
            yield bytes([number]) * 10

    with Spool() as spool:
        place = spool.put(chunks())
        for chunk in spool.get(place):
            alive = max(alive, len(chunk))

    assert place == (0, 500)
    assert alive == 64
