"""Wildcard matching in time linear in the text: `*` is any run of characters, `?` exactly one (PS3.4 §C.2.2.2.4).

DICOM knows no escape, so a pattern needs none. No regular expressions and no SQL `LIKE`: both backtrack, and
`*?*?*?*x` is a question that a stranger may ask.
"""

from collections.abc import Callable

_ONE = None
"""The token of `?`; every other token is a literal character."""


class Pattern:
    """A compiled pattern, compared with whole texts."""

    __slots__ = ("_accepts", "_loops", "_pieces", "_single", "_width", "is_wildcard", "runs")

    def __init__(self, text: str, *, is_wildcard: bool, normalize: Callable[[str], str] = str) -> None:
        """Compile `text`.

        Args:
            is_wildcard: whether `*` and `?` mean anything; else every character stands for itself.
            normalize: applied to the literal runs, so that a character which folds to `*` does not become a wildcard.
        """
        tokens, loops, runs = _tokens(text, normalize) if is_wildcard else ([*normalize(text)], 0, (normalize(text),))
        self.is_wildcard = loops != 0 or _ONE in tokens
        self.runs: tuple[str, ...] = runs
        """The literal runs between wildcards: each is contained in every text that matches."""
        self._loops = loops
        self._width = len(tokens)
        self._pieces = _literal_pieces(tokens, loops)
        self._single = sum(1 << index for index, token in enumerate(tokens) if token is _ONE)
        self._accepts: dict[str, int] = {}
        if self._pieces is None:
            for index, token in enumerate(tokens):
                if token is not None:
                    self._accepts[token] = self._accepts.get(token, self._single) | 1 << index

    @property
    def infix(self) -> str | None:
        """`x` if the pattern is exactly `*x*`: then containing `x` is all that a text needs."""
        pieces = self._pieces
        return pieces[1] if pieces is not None and len(pieces) == 3 and pieces[0] == pieces[2] == "" else None

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        return self._matches_tokens(text) if self._pieces is None else _matches_pieces(text, self._pieces)

    def _matches_tokens(self, text: str) -> bool:
        """Run all states at once as the bits of an integer: bit i says that the first i tokens have been matched."""
        states = 1
        for char in text:
            states = (states & self._accepts.get(char, self._single)) << 1 | states & self._loops
            if states == 0:
                return False
        return states >> self._width & 1 == 1


def _tokens(text: str, normalize: Callable[[str], str]) -> tuple[list[str | None], int, tuple[str, ...]]:
    """Characters and `?`s; the bits of the places where a `*` stands before a token; the literal runs."""
    tokens: list[str | None] = []
    runs: list[str] = []
    loops = 0
    literal: list[str] = []
    for char in [*text, ""]:
        if char not in ("*", "?", ""):
            literal.append(char)
            continue
        if literal:
            runs.append(normalize("".join(literal)))
            tokens.extend(runs[-1])
            literal.clear()
        if char == "*":
            loops |= 1 << len(tokens)
        elif char == "?":
            tokens.append(_ONE)
    return tokens, loops, tuple(runs)


def _literal_pieces(tokens: list[str | None], loops: int) -> list[str] | None:
    """The texts before, between and behind the `*`s; None if a `?` is among the tokens."""
    pieces = [""]
    for index, token in enumerate([*tokens, ""]):
        if loops >> index & 1:
            pieces.append("")
        if token is None:
            return None
        pieces[-1] += token
    return pieces


def _matches_pieces(text: str, pieces: list[str]) -> bool:
    """Take each piece at its first place: with `*` on both sides, a later place can only leave less room."""
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    position, stop = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, position, stop)
        if found < 0:
            return False
        position = found + len(piece)
    return True
