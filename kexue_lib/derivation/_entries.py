"""Entries of indexed unknowns that meet the conditions put on them, on every boundary of these conditions too.

A condition on entries (a bound on every entry, a chain, a total) is solved for one entry after the other, those before
it being fixed: what is between its edges is allowed. Each point takes the entries in one manner, all of them on an
edge, all but one, close to it, in the corners …: a false statement about bounded entries fails there, if anywhere.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import sympy as sp
from sympy.core.relational import Relational

from kexue_lib.derivation._aims import zeros
from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._structure import Structure
from kexue_lib.derivation._truth import NoValue, truth
from kexue_lib.derivation._unknowns import Entries, admits

_MANNERS = ("inside", "least", "greatest", "corners", "one inside", "one on the edge", "one opposite", "close")
_MOST = 400  # entries that are put on edges one by one
_MOST_IN_CHAINS = 40  # conditions that each relate several entries: their values grow from one to the next
_MOST_IN_TOTAL = 40  # entries of a total that is written out
_CLOSE = (sp.Rational(1, 1000), sp.Rational(1, 10**9))

Place = tuple[sp.IndexedBase, tuple[int, ...]]


class _Rule:
    """A relation between entries, with names in the place of the entries, and solved for each of them."""

    def __init__(self, relation: Any, entries: Sequence[sp.Indexed]) -> None:
        self.entries = entries
        self.names = [sp.Dummy(f"x{i}", **e.base.assumptions0) for i, e in enumerate(entries)]
        self.relation = relation.xreplace(dict(zip(entries, self.names)))
        self.edges: list[list[sp.Expr]] = [[] for _ in entries]
        if isinstance(relation, Relational):
            gap = (relation.lhs - relation.rhs).xreplace(dict(zip(entries, self.names)))
            free = [sp.Dummy(real=name.is_extended_real) for name in self.names]  # an edge may lie outside
            swap, back = dict(zip(self.names, free)), dict(zip(free, self.names))
            self.edges = [[v.xreplace(back) for v in zeros(gap.xreplace(swap), name)] for name in free]


class _Case(NamedTuple):
    """A rule at certain entries: the numbers that the other symbols stand for, and the places of the entries."""

    rule: _Rule
    numbers: dict[Any, Any]
    places: tuple[Place, ...]


class EntryConditions:
    """The conditions on the entries of indexed unknowns, and entries that meet them."""

    def __init__(self, conditions: Sequence[Any], structure: Structure) -> None:
        self.structure = structure
        self.totals = [c for c in conditions if isinstance(c, Relational) and c.has(sp.Sum, sp.Product)]
        self.totals = [c for c in self.totals if c.has(sp.Indexed)]
        self.rules: list[tuple[tuple[Any, ...], _Rule]] = []
        for condition in conditions:
            limit = tuple(condition.limit) if isinstance(condition, ForEvery) else ()
            if limit or (condition.has(sp.Indexed) and condition not in self.totals):
                for part in sp.And.make_args(condition.condition if limit else condition):
                    self.rules.append((limit, _Rule(part, self._sorted(part.atoms(sp.Indexed)))))
        self.count = 0

    def settle(self, point: dict[Any, Any], draw: random.Random) -> bool:
        """Change the entries of a point until they meet the conditions; False where that did not succeed."""
        if not (self.rules or self.totals):
            return True
        numbers = {key: value for key, value in point.items() if isinstance(key, sp.Symbol)}
        self.count += 1
        manner = _MANNERS[self.count % len(_MANNERS)]
        try:
            cases = [case for limit, rule in self.rules for case in _cases(limit, rule, numbers)]
            if len(cases) > _MOST_IN_CHAINS and any(len(case.places) > 1 for case in cases):
                return False
            if not _Settling(point, cases, manner, draw).succeeds():
                return False
            return all(self._settle_total(total, point, numbers, manner, draw) for total in self.totals)
        except NoValue:
            return False

    def _sorted(self, entries: set[Any]) -> list[sp.Indexed]:
        return sorted(entries, key=self.structure.key)

    def _settle_total(self, total: Any, point: Any, numbers: Any, manner: str, draw: random.Random) -> bool:
        """Scale the entries until a condition on their total holds, or change one of them where that cannot be."""
        scaled = self._scale(total, point, numbers, manner, draw)
        if scaled is not None and (scaled or not isinstance(total, sp.Eq)):
            return scaled
        written = total.func(*(_written_out(side, numbers) for side in total.args), evaluate=False)
        entries = self._sorted(written.atoms(sp.Indexed))
        if not 0 < len(entries) <= _MOST_IN_TOTAL:
            return truth(total, point).value is True
        changed = draw.choice(entries)
        places = [(e.base, tuple(map(int, e.indices))) for e in entries]
        values = {e: point[base].at(*key) for e, (base, key) in zip(entries, places) if e != changed}
        rule = _Rule(written.func(*(side.xreplace(values) for side in written.args), evaluate=False), [changed])
        case = _Case(rule, numbers, (places[entries.index(changed)],))
        return _Settling(point, [case], manner, draw).succeeds()

    def _scale(self, total: Any, point: Any, numbers: Any, manner: str, draw: random.Random) -> bool | None:
        """Multiply all entries of one unknown by one number; None where the total does not follow such a factor."""
        for base in sorted(total.atoms(sp.IndexedBase), key=self.structure.key):
            for side, other in (total.args, total.args[::-1]):
                power = _degree(side, base)
                if not power or other.has(base):
                    continue
                here, wanted = (_value(e, point, numbers) for e in (side, other))
                if here is None or wanted is None or not (here * wanted).is_positive:
                    continue
                edge = (wanted / here) ** (sp.Integer(1) / power)
                for factor in _candidates(sp.Integer(1), [edge], _kind(manner, True, "greatest", draw), draw):
                    if factor.is_positive:
                        point[base].scale_by(factor)
                        if truth(total, point).value is True:
                            return True
                        point[base].scale_by(1 / factor)
                return False
        return None


class _Settling:
    """Entries of one point that are brought within their conditions, one after the other."""

    def __init__(self, point: dict[Any, Any], cases: Sequence[_Case], manner: str, draw: random.Random) -> None:
        self.point, self.manner, self.draw = point, manner, draw
        self.cases: dict[Place, list[tuple[_Case, int]]] = {}
        for case in cases:
            for position, place in enumerate(case.places):
                self.cases.setdefault(place, []).append((case, position))
        self.values: dict[Place, sp.Expr] = {}

    def succeeds(self) -> bool:
        """Whether every entry found a value."""
        if not all(isinstance(self.point.get(base), Entries) for base, _ in self.cases):
            return False
        last = max(len(self.cases) - 1, 0)
        special = self.draw.choice((0, last, self.draw.randint(0, last)))
        common = self.draw.choice(("least", "greatest"))
        if len(self.cases) > _MOST and self.manner in ("corners", "close"):
            self.manner = "greatest"
        for number, (place, cases) in enumerate(self.cases.items()):
            value = self._chosen(place, cases, _kind(self.manner, number == special, common, self.draw))
            if value is None:
                return False
            base, key = place
            self.values[place] = value
            self.point[base].put(key, value)
        return True

    def _chosen(self, place: Place, cases: Sequence[tuple[_Case, int]], kind: str) -> sp.Expr | None:
        base, key = place
        entries = self.point[base]
        ready = [(case, position) for case, position in cases if self._others_known(case, position)]
        edges = [self._at(edge, case) for case, position in ready for edge in case.rule.edges[position]]
        edges = sorted({e for e in edges if e.is_extended_real and e.is_finite}, key=_size)
        for value in _candidates(entries.at(*key), edges, kind, self.draw):
            if admits(entries.facts, value) and all(self._holds(case, position, value) for case, position in ready):
                return value
        return None

    def _others_known(self, case: _Case, position: int) -> bool:
        return all(place in self.values for i, place in enumerate(case.places) if i != position)

    def _at(self, edge: sp.Expr, case: _Case) -> sp.Expr:
        names = {name: self.values.get(place) for name, place in zip(case.rule.names, case.places)}
        return edge.xreplace(case.numbers | {name: value for name, value in names.items() if value is not None})

    def _holds(self, case: _Case, position: int, value: sp.Expr) -> bool:
        values = {name: self.values.get(place, value) for name, place in zip(case.rule.names, case.places)}
        values[case.rule.names[position]] = value
        return truth(case.rule.relation, self.point | case.numbers | values).value is True


def _cases(limit: tuple[Any, ...], rule: _Rule, numbers: dict[Any, Any]) -> Iterator[_Case]:
    """A condition on every index, index by index; without a range, the condition itself."""
    index, *ends = limit or (None, sp.Integer(0), sp.Integer(0))
    low, high = (end.xreplace(numbers) for end in ends)
    if not (low.is_Integer and high.is_Integer and high - low <= 4 * _MOST):
        raise NoValue("a range without ends in numbers")
    for k in range(int(low), int(high) + 1):
        here = numbers | {index: sp.Integer(k)} if limit else numbers
        places = []
        for entry in rule.entries:
            key = [i.xreplace(here) for i in entry.indices]
            if not all(i.is_Integer for i in key):
                raise NoValue("an index that is no integer")
            places.append((entry.base, tuple(map(int, key))))
        yield _Case(rule, here, tuple(places))


def _kind(manner: str, special: bool, common: str, draw: random.Random) -> str:
    """Where one entry goes if a point takes its entries in some manner, most of them on the `common` edge."""
    if manner == "corners":
        return draw.choice(("least", "greatest"))
    if manner == "one inside":
        return "inside" if special else common
    if manner == "one on the edge":
        return common if special else "inside"
    if manner == "one opposite":
        return common if not special else "least" if common == "greatest" else "greatest"
    return manner


def _candidates(value: sp.Expr, edges: Sequence[sp.Expr], kind: str, draw: random.Random) -> Iterator[sp.Expr]:
    """Values to try, in turn: of the kind wanted, then whatever may satisfy the conditions at all."""
    if kind in ("least", "greatest"):
        yield from edges if kind == "least" else reversed(edges)
    if kind in ("least", "greatest", "close"):
        near = draw.choice(_CLOSE)
        for edge in edges if kind == "least" else reversed(edges):
            yield from (edge - near * (1 + abs(edge)), edge + near * (1 + abs(edge)), edge - 1, edge + 1)
    yield value
    size = abs(value)
    for low, high in pairwise(edges):
        yield low + (high - low) * size / (1 + size)
    for edge in edges:
        yield from (2 * edge - value, edge + size, edge - size, edge, sp.floor(edge), sp.ceiling(edge))
        yield from (edge / 2, 2 * edge, sp.floor(edge) - 1, sp.ceiling(edge) + 1)


def _degree(e: Any, base: sp.IndexedBase) -> Any:
    """The power of a positive factor of all entries that the expression follows; None where it follows none."""
    if isinstance(e, sp.Indexed) and e.base == base:
        return sp.Integer(1)
    if not e.has(base):
        return sp.Integer(0)
    if isinstance(e, (sp.Sum, sp.Abs)):
        return _degree(e.args[0], base)
    if isinstance(e, sp.Pow) and e.exp.is_number and e.exp.is_extended_real:
        inner = _degree(e.base, base)
        return None if inner is None else inner * e.exp
    degrees = [_degree(argument, base) for argument in e.args]
    if isinstance(e, sp.Mul):
        return None if None in degrees else sum(degrees)
    if isinstance(e, (sp.Add, sp.Max, sp.Min)) and len(set(degrees)) == 1:
        return degrees[0]
    return None


def _value(e: Any, point: dict[Any, Any], numbers: dict[Any, Any]) -> sp.Expr | None:
    """The exact value of an expression at a point, where its sums have their ends in numbers."""
    written = _written_out(e, numbers)
    entries = written.atoms(sp.Indexed)
    value = written.xreplace({entry: point[entry.base].at(*map(int, entry.indices)) for entry in entries})
    return value if value.is_number and value.is_finite else None


def _written_out(e: Any, numbers: dict[Any, Any]) -> Any:
    """The expression with numbers put in and every sum written term by term."""
    if isinstance(e, sp.Sum):
        (index, *ends), *outer = reversed(e.limits)
        low, high = (end.xreplace(numbers) for end in ends)
        if not (low.is_Integer and high.is_Integer and high - low <= 4 * _MOST):
            raise NoValue("a range without ends in numbers")
        inner = sp.Sum(e.function, *reversed(outer)) if outer else e.function
        terms = [_written_out(inner, numbers | {index: sp.Integer(k)}) for k in range(int(low), int(high) + 1)]
        return sp.Add(*terms)
    if not e.args or isinstance(e, sp.IndexedBase):
        return numbers.get(e, e)
    if isinstance(e, sp.Indexed):
        indices = [index.xreplace(numbers) for index in e.indices]
        if not all(index.is_Integer for index in indices):
            raise NoValue("an index that is no integer")
        return e.base[tuple(indices)]
    return e.func(*(_written_out(argument, numbers) for argument in e.args))


def _size(number: sp.Expr) -> Any:
    return number if number.is_Rational else number.evalf(30)
