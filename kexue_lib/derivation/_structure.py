"""An order of the unknowns of a statement that their names have no part in: what each of them does decides.

Colour refinement: unknowns of one kind and with the same assumptions start with one colour, and get different ones as
soon as they occur at different places among the others. Where colours remain equal, the statement is (in all but
contrived cases) symmetric in these unknowns, and it does not matter which of them comes first.
"""

from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction
from sympy.core.operations import AssocOp, LatticeOp

_UNORDERED = (sp.Add, LatticeOp, sp.MatAdd, sp.KroneckerDelta, sp.FiniteSet, sp.Equivalent, sp.Xor)


class Structure:
    """The unknowns of a list of expressions in an order, and keys of expressions to sort by, free of names.

    Cost: a walk through the expressions for every unknown that others look like, some microseconds for each part.
    """

    def __init__(self, expressions: Sequence[Any]) -> None:
        self.expressions = expressions
        self._keys: dict[Any, int] = {}
        self._colours: dict[Any, int] = {}
        self._refine()

    def key(self, item: Any) -> int:
        """A number by which to sort expressions or unknowns."""
        if item in self._colours:
            return self._colours[item]
        if isinstance(item, UndefinedFunction):
            return _first_colour(item)
        if item not in self._keys:
            self._keys[item] = self._digest(item)
        return self._keys[item]

    def _digest(self, e: Any) -> int:
        if isinstance(e, (sp.Symbol, sp.IndexedBase, sp.MatrixSymbol)):
            return _first_colour(e)
        children = _children(e)
        if not children:
            return _mixed(type(e).__name__, str(e))
        keys = [self.key(child) for child in children]
        return _mixed(type(e).__name__, *(sorted(keys) if _is_unordered(e) else keys))

    def _refine(self) -> None:
        """Colour by places until every unknown has a colour of its own, telling look-alikes apart one by one."""
        count = 0
        while True:
            places: dict[Any, list[int]] = {}
            for position, e in enumerate(self.expressions):
                self._visit(e, position, places)
            colours = {name: _mixed(self._colours.get(name, 0), *sorted(found)) for name, found in places.items()}
            self._colours, self._keys = colours, {}
            if len(set(colours.values())) == len(colours):
                return
            if len(set(colours.values())) == count:
                alike = min(c for c in colours.values() if list(colours.values()).count(c) > 1)
                chosen = min((name for name, colour in colours.items() if colour == alike), key=str)
                self._colours[chosen] = _mixed("chosen", alike)
            count = len(set(self._colours.values()))

    def _visit(self, e: Any, place: int, places: dict[Any, list[int]]) -> None:
        if isinstance(e, (sp.Symbol, sp.IndexedBase)):
            places.setdefault(e, [_first_colour(e)]).append(place)
            return
        if isinstance(e, sp.MatrixSymbol):
            places.setdefault(e, [_first_colour(e)]).append(_mixed(place, *map(self.key, e.shape)))
        here = _mixed(place, self.key(e))
        unordered = _is_unordered(e)
        for position, child in enumerate(_children(e)):
            if isinstance(child, UndefinedFunction):
                places.setdefault(child, [_first_colour(child)]).append(here)
            else:
                self._visit(child, here if unordered else _mixed(here, position), places)


def _children(e: Any) -> tuple[Any, ...]:
    if isinstance(e, AppliedUndef):
        return (e.func, *e.args)
    if isinstance(e, sp.MatrixSymbol):
        return e.shape
    return e.args


def _is_unordered(e: Any) -> bool:
    """Whether SymPy puts the arguments in an order of its own, by their names."""
    return isinstance(e, _UNORDERED) or (isinstance(e, AssocOp) and bool(e.is_commutative))


def _first_colour(name: Any) -> int:
    """What is known about an unknown on its own."""
    if isinstance(name, UndefinedFunction):
        kind, facts = "function", getattr(name, "_kwargs", None) or {}
    else:
        kind = next(k.__name__ for k in (sp.IndexedBase, sp.MatrixSymbol, sp.Symbol) if isinstance(name, k))
        facts = name.assumptions0
    return _mixed(kind, *(f"{fact}={facts[fact]}" for fact in sorted(facts)))


def _mixed(*parts: Hashable) -> int:
    """The parts as one number, the same on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
