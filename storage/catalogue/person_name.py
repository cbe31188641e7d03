"""Person names as they are compared: by component group, without case, accents and trailing empty components.

A name has up to three groups (alphabetic, ideographic, phonetic), joined by `=` in text and named in DICOM JSON
(PS3.5 §6.2.1.1, PS3.18 §F.2.2). A key without `=` is looked for in every group; a key with `=` group by group, where an
empty group says nothing. Fuzzy: each word of the key begins (or, with wildcards, matches) some word of one group.
"""

import re
from collections.abc import Callable

from storage.catalogue.folding import fold
from storage.catalogue.pattern import Pattern

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_WORD_BREAKS = re.compile(r"[\s^=,]+")

GroupTest = Callable[[str], bool]
"""Tests one folded component group."""


def name_groups(value: object) -> tuple[str, ...]:
    """The three folded groups of a PN value of DICOM JSON, empty where absent; a plain string is read as PS3.5 text."""
    if isinstance(value, dict):
        texts = [value.get(group) for group in _GROUPS]
    else:
        texts = [*value.split("=")[:3]] if isinstance(value, str) else []
    groups = [_tidy(fold(text)) if isinstance(text, str) else "" for text in texts]
    return tuple([*groups, "", "", ""][:3])


def name_test(key: str, *, is_wildcard: bool, fuzzy: bool) -> Callable[[object], bool]:
    """The test of a PN value for the text of a match key."""
    if "=" not in key:
        test = group_test(key, is_wildcard=is_wildcard, fuzzy=fuzzy)
        return lambda value: any(test(group) for group in name_groups(value) if group)
    tests = [
        group_test(group, is_wildcard=is_wildcard, fuzzy=fuzzy) if _tidy(group) else None
        for group in key.split("=")[:3]
    ]
    return lambda value: all(
        test is None or (group != "" and test(group)) for test, group in zip(tests, name_groups(value), strict=False)
    )


def group_test(key: str, *, is_wildcard: bool, fuzzy: bool) -> GroupTest:
    """The test of one folded group for a key without `=`."""
    literal = _literal_test(_tidy(key), is_wildcard=is_wildcard)
    words = _words_test(key, is_wildcard=is_wildcard) if fuzzy else None
    return literal if words is None else lambda group: literal(group) or words(group)


def contained_text(key: str, *, is_wildcard: bool, fuzzy: bool) -> str | None:
    """`x` if a group matches exactly when it contains `x`: the key is `*x*`, as viewers send it."""
    if fuzzy or "^" in key or "=" in key:
        return None
    return Pattern(_tidy(key), is_wildcard=is_wildcard, normalize=fold).infix


def key_words(key: str, *, is_wildcard: bool) -> list[str]:
    """Folded runs of letters that every matching name contains: what an index may look for first."""
    runs = Pattern(key, is_wildcard=is_wildcard, normalize=fold).runs
    return [word for run in runs for word in _WORD_BREAKS.split(run) if word]


def _tidy(group: str) -> str:
    """Without blanks around components and without empty components at the end."""
    return "^".join(component.strip() for component in group.split("^")).rstrip("^")


def _literal_test(key: str, *, is_wildcard: bool) -> GroupTest:
    pattern = Pattern(key, is_wildcard=is_wildcard, normalize=fold)
    if not pattern.is_wildcard:
        return pattern.matches
    carets = key.count("^")
    # `Doe^*` is to find `Doe`: the empty components that were cut off are given back, as many as the key speaks of.
    return lambda group: (
        pattern.matches(group)
        or (group.count("^") < carets and pattern.matches(group + "^" * (carets - group.count("^"))))
    )


def _words_test(key: str, *, is_wildcard: bool) -> GroupTest:
    # Every word may go on, and only the key's own wildcards are wild: a literal `*` must not become one.
    tests = [_beginning_test(word, is_wildcard=is_wildcard) for word in _WORD_BREAKS.split(key) if word]
    if not tests:
        return lambda group: False
    return lambda group: all(any(test(word) for word in _WORD_BREAKS.split(group)) for test in tests)


def _beginning_test(word: str, *, is_wildcard: bool) -> GroupTest:
    if not is_wildcard:
        start = fold(word)
        return lambda text: text.startswith(start)
    return Pattern(word + "*", is_wildcard=True, normalize=fold).matches
