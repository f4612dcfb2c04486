"""What damaged and hostile input looks like, for hypothesis."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, 2**200, 2**4000]),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["../../x", "/etc/passwd", "os.system", "${seed}", "${oc.env:HOME}", "\x1b[2J", "\0", "1e3"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in nested dicts and lists."""
    entries = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [(tree, key) for key, _ in entries] + [place for _, value in entries for place in places(value)]


def mutated(draw: Any, tree: Any, replacements: st.SearchStrategy[Any] = values) -> Any:
    """A copy in which one to three things are replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        found = places(tree)
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "remove":
            del container[key]
        elif how == "add" and isinstance(container, dict):
            container[draw(st.text(max_size=8))] = draw(replacements)
        else:
            container[key] = draw(replacements)
    return tree


def damaged(draw: Any, content: bytes) -> bytes:
    """Bytes with a few bits flipped, cut short, or with a piece replaced."""
    result = bytearray(content)
    if draw(st.integers(0, 4)) == 0:
        del result[draw(st.integers(0, len(result))) :]
    for _ in range(draw(st.integers(0, 4))):
        if result:
            result[draw(st.integers(0, len(result) - 1))] ^= 1 << draw(st.integers(0, 7))
    if draw(st.booleans()):
        start = draw(st.integers(0, len(result)))
        result[start : start + draw(st.integers(0, 64))] = draw(st.binary(max_size=64))
    return bytes(result)
