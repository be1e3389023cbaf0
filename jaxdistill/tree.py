"""Names of parameters: nested dicts as flat `a/b/c` names, rules over names, selecting and merging.

A *rule table* is a sequence of `(pattern, value)`; a name takes the value of the first pattern that matches it whole.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Tree = Mapping[str, Any]
Rules = Sequence[tuple[str, Any]]

BRIDGE = "bridge"
"""The tree beside those of the models: helper parameters that terms and mixed input train, by their names."""

CONSTANTS = "constants"
"""The tree of what terms derive from vocabularies: it never trains and is in no checkpoint."""


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict from `a/b/c` names to leaves, in sorted order of the keys."""
    flat = {}
    for key in sorted(tree):
        name, value = f"{prefix}{key}", tree[key]
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}/"))
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`; empty sub-trees do not come back."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def first_match(rules: Rules, name: str) -> Any:
    """The value of the first rule whose pattern matches the whole name.

    Raises:
      KeyError: no rule matches.
    """
    for pattern, value in rules:
        if re.fullmatch(pattern, name):
            return value
    raise KeyError(f"no rule matches the parameter {name!r}; the patterns are {[pattern for pattern, _ in rules]}")


def map_names(function: Callable[[str, Any], Any], tree: Tree) -> dict[str, Any]:
    """A tree of the same shape whose leaves are `function(name, leaf)`."""
    return unflatten({name: function(name, leaf) for name, leaf in flatten(tree).items()})


def split(tree: Tree, chosen: Callable[[str], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two trees: the leaves whose name is chosen, and the others."""
    flat = flatten(tree)
    return (
        unflatten({name: leaf for name, leaf in flat.items() if chosen(name)}),
        unflatten({name: leaf for name, leaf in flat.items() if not chosen(name)}),
    )


def merge(*trees: Tree) -> dict[str, Any]:
    """The union of trees with disjoint leaves.

    Raises:
      ValueError: a name occurs twice.
    """
    flat: dict[str, Any] = {}
    for tree in trees:
        for name, leaf in flatten(tree).items():
            if name in flat:
                raise ValueError(f"{name} occurs in two of the trees to merge")
            flat[name] = leaf
    return unflatten(flat)
