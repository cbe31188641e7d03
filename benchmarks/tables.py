"""Tables in Markdown, and figures of three digits."""

from collections.abc import Sequence


def table(heads: Sequence[str]) -> list[str]:
    """The first two lines of a table: a column of text, and others of figures."""
    return [row(heads), row(["---", *("--:" for _ in heads[1:])])]


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def mark(aim: float | None, value: float) -> str:
    """An aim that a value must not exceed, and whether it does."""
    return "" if aim is None else f"{aim:g} {'✅' if value <= aim else '❌'}"


def share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}"


def size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
