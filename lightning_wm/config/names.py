"""The nearest right name of a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of `known`, or None where nothing is close.

    Over dotted keys; a key with the same last word counts as near whatever its
    group, so that `batch` finds `replay.batch`.
    """
    choices = sorted(set(known))
    same = [choice for choice in choices if _last(choice) == _last(name) and choice != name]
    whole = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if same and not ("." in name and whole and _group(whole[0]) == _group(name)):
        return max(same, key=lambda choice: _ratio(name, choice))
    if whole:
        return whole[0]
    scored = [(max(_ratio(_last(name), _last(choice)), _ratio(name, choice)), choice) for choice in choices]
    best = max(scored, default=(0.0, ""))
    return best[1] if best[0] >= 0.6 else None


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    found = nearest(name, known)
    return f"; did you mean {found!r}?" if found else ""


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _group(key: str) -> str:
    return key.rpartition(".")[0]


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()
