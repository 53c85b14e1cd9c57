"""What was assumed about an unknown, in few words."""

from collections.abc import Mapping
from typing import Any

import sympy as sp


def generators(facts: Mapping[str, Any]) -> dict[str, bool]:
    """A few assumptions that all the others follow from.

    >>> generators({"real": True, "positive": True, "zero": False, "complex": True})
    {'positive': True}
    """
    reach = lambda chosen: sp.Symbol("x", **chosen).assumptions0
    left = {name: value for name, value in facts.items() if value is not None and name != "commutative"}
    chosen: dict[str, bool] = {}
    while left:
        name = max(sorted(left), key=lambda name: len(reach({name: left[name]})))
        chosen[name] = left[name]
        left = {name: value for name, value in left.items() if name not in reach(chosen)}
    return chosen
