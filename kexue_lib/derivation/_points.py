"""Points of the domain that assumptions and conditions allow: aimed ones, structured ones and random ones."""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction
from sympy.matrices.expressions.matexpr import MatrixElement

from kexue_lib.derivation._aims import constants, critical, solve_for_one, targets, zeros
from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._entries import EntryConditions
from kexue_lib.derivation._given import parts
from kexue_lib.derivation._structure import Structure
from kexue_lib.derivation._truth import NoValue, truth
from kexue_lib.derivation._unknowns import (
    Entries,
    admits,
    explicit_matrix,
    function_values,
    has_fact,
    known_facts,
    matrix_value,
)

Point = dict[Any, Any]

_SEED = 1729  # one for all statements: what is found must not depend on a title
_STRUCTURED = [sp.Integer(0), sp.Integer(1), sp.Integer(-1), sp.Rational(1, 2), sp.Rational(-1, 2), sp.Integer(2)]
_STRUCTURED += [sp.Integer(-2), sp.Integer(3), sp.Rational(1, 3), sp.Integer(4), sp.I, -sp.I, 1 + sp.I]
_IRRATIONAL = (sp.sqrt(2), sp.pi / 3, sp.E / 2, sp.sqrt(3) / 2)
_OFFSETS = (0, sp.Rational(1, 1000), -sp.Rational(1, 1000), 1, -1, 20, -20)
_NEAR, _MEETINGS = sp.Rational(1, 1000), 12  # how far around a corner; how many corners
_SIZES = (1, 2, 3, 5, 2, 3, 1, 2, 3, 5, 2, 3, 8)


class Domain:
    """The values that the unknowns of a statement may take."""

    def __init__(self, statement: Any, given: Sequence[Any]) -> None:
        self.random = random.Random(_SEED)
        self.statement, self.given = statement, parts(given)
        everything = [statement, *self.given]
        # Points are drawn in this order: they must not depend on names.
        self.structure = Structure(everything)
        in_order = lambda unknowns: sorted(unknowns, key=self.structure.key)
        self.functions = in_order({a.func for part in everything for a in part.atoms(AppliedUndef)})
        self.matrices = in_order({m for part in everything for m in part.atoms(sp.MatrixSymbol)})
        self.indexed = in_order({base for part in everything for base in part.atoms(sp.IndexedBase)})
        self.sizes = {s for matrix in self.matrices for n in matrix.shape for s in sp.sympify(n).free_symbols}
        self.symbols = self._symbols(everything)
        totals = [total for part in everything for total in part.atoms(sp.Sum, sp.Product)]
        self.limits = {s for t in totals for limit in t.limits for end in limit[1:] for s in end.free_symbols}
        self.nested = any(len(t.limits) > 1 or t.function.has(sp.Sum, sp.Product) for t in totals)
        # narrow or wide integrands cost quadrature most of its digits
        self.tame = {s for p in everything for e in p.atoms(sp.Integral, sp.Limit) for s in e.free_symbols}
        self.smooth = any(part.has(sp.Derivative, sp.Subs, sp.Integral, sp.Limit) for part in everything)
        self.matrix_facts = [fact for fact in self.given if isinstance(fact, sp.AppliedPredicate)]
        self.conditions = [fact for fact in self.given if fact not in self.matrix_facts]
        self.entry_conditions = EntryConditions(self.conditions, self.structure)
        self.elements = [e for part in everything for e in part.atoms(MatrixElement)]
        # Where the slope of an equation vanishes, it does not determine the symbol that it was solved for.
        self.lost: list[tuple[sp.Symbol, sp.Symbol, sp.Expr]] = []
        self.solved = self._solve_equations()
        self.free = [symbol for symbol in self.symbols if symbol not in self.solved]
        self.constants = constants(statement, self.given)
        self._targets: list[tuple[sp.Symbol, sp.Expr]] | None = None
        self._linear: dict[sp.Symbol, list[tuple[sp.Expr, sp.Expr]]] = {}

    @property
    def is_empty(self) -> bool:
        """No unknowns at all: a statement about numbers."""
        return not (self.symbols or self.matrices or self.functions or self.indexed)

    @property
    def targets(self) -> list[tuple[sp.Symbol, sp.Expr]]:
        """The boundaries of the statement, solved for one symbol each."""
        if self._targets is None:
            self._targets = targets(self.statement, self.given, self.free, self.structure.key)
        return self._targets

    def _symbols(self, everything: Sequence[Any]) -> list[sp.Symbol]:
        names = {base.label for base in self.indexed} | {matrix.args[0] for matrix in self.matrices}
        free = set().union(*(part.free_symbols for part in everything)) | self.sizes
        free = {s for s in free if isinstance(s, sp.Symbol)} - names
        return sorted(free, key=self.structure.key)

    def _solve_equations(self) -> dict[sp.Symbol, list[sp.Expr]]:
        """Each equation among the conditions gives one symbol as a function of the others."""
        solved: dict[sp.Symbol, list[sp.Expr]] = {}
        for equation in (c for c in self.conditions if isinstance(c, sp.Eq)):
            if getattr(equation.lhs, "is_Matrix", False) or equation.has(sp.Sum, sp.Product, sp.Indexed, AppliedUndef):
                continue
            gap = equation.lhs - equation.rhs
            for symbol, values in solved.items():
                gap = gap.subs(symbol, values[0])
            symbol, values = solve_for_one(gap, set(solved), self.structure.key)
            if symbol is not None:
                slope = sp.diff(gap, symbol)
                for other in sorted(slope.free_symbols - {symbol}, key=self.structure.key):
                    self.lost += [(symbol, other, value) for value in zeros(slope, other)]
                solved = {s: [v.subs(symbol, values[0]) for v in vs] for s, vs in solved.items()}
                solved[symbol] = values
        return solved

    # --- points -------------------------------------------------------------------------------------------------------

    def points(self, count: int) -> Iterator[Point]:
        """Up to `count` different points of the domain, structured, aimed and random ones in turn."""
        seen: set[str] = set()
        sources = [self._structured(), self._aimed(), self._random()]
        misses = 0
        for source in itertools.cycle(sources):
            # SymPy fails on roots of some large numbers: a point lost.
            candidate = attempted(lambda source=source: next(source, None), None)
            point = None if candidate is None else attempted(lambda c=candidate: self._complete(c), None)
            key = None if point is None else self._key(point)
            if key is None or key in seen:
                misses += 1
                if misses > 200 + 20 * len(seen):
                    return
                continue
            seen.add(key)
            yield point
            if len(seen) == count:
                return

    def _key(self, point: Point) -> str:
        return str({k: (v.seed, v.style) if isinstance(v, Entries) else v for k, v in point.items()})

    def _structured(self) -> Iterator[Point]:
        if self.is_empty:
            yield {}
            return
        for _ in range(30 if self.solved else 0):  # points of the equations that solving them may have lost
            yield {symbol: self.random.choice(_STRUCTURED) for symbol in self.symbols}
        for value in _STRUCTURED[:3]:  # all symbols equal that can be, then one of them zero
            yield {s: value if admits(s, value) else drawn for s, drawn in self._draw().items()}
        for side in (1, -1, None, None):  # one symbol zero, the others on one side of it where they can be, or anywhere
            for symbol in self.free:
                point = self._draw()
                if side is not None:
                    moved = {s: side * abs(v) for s, v in point.items() if v.is_extended_real}
                    point |= {s: v for s, v in moved.items() if admits(s, v)}
                yield point | {symbol: sp.Integer(0)}
        for i in range(60):
            if i % 2 == 0 and i // 2 < len(_STRUCTURED):  # all symbols equal that can be
                value = _STRUCTURED[i // 2]
                yield {s: value if admits(s, value) else drawn for s, drawn in self._draw().items()}
            yield {symbol: self.random.choice(_STRUCTURED) for symbol in self.free}
        for _ in range(20):  # two symbols equal, the others random
            point = self._draw()
            if len(self.free) > 1:
                one, other = self.random.sample(self.free, 2)
                point[one] = point[other]
                yield point

    def _aimed(self) -> Iterator[Point]:
        for _ in range(4):
            for symbol, other, value in self.lost:
                point = self._draw() | {symbol: self._value(symbol, -sp.oo, sp.oo)}
                point[other] = value.subs(point)
                if not point[other].free_symbols:
                    yield point
        for offset in _OFFSETS:
            for symbol, value in self.targets:
                point = self._draw()
                others = {s: v for s, v in point.items() if s != symbol}
                at = value.subs({s: values[0] for s, values in self.solved.items()}).subs(others)
                if at.free_symbols:
                    continue
                if symbol.is_integer:
                    at = sp.floor(at) if at.is_extended_real else at
                    offset = sp.Integer(offset) if sp.Integer(offset) == offset else sp.Integer(2 if offset > 0 else -2)
                yield point | {symbol: at + offset}
        for number in self.constants:
            for symbol in self.free:
                for value in (number, number + 1, number - 1, 2 * number + 1, -number):
                    if symbol.is_integer is not True or value.is_Integer:
                        yield self._draw() | {symbol: value}

    def corners(self) -> Iterator[Point]:
        """Points at and around the places where two boundaries meet, in the statement or in its conditions."""
        around = list(itertools.product((0, _NEAR, -_NEAR), repeat=2))
        pairs = itertools.combinations(critical(self.statement, self.given, self.structure.key), 2)
        meetings = (self._meeting(*pair) for pair in pairs)
        for one, other in itertools.islice(filter(None, meetings), _MEETINGS):
            for steps in around:
                point = self._draw()
                for (symbol, value), step in zip((other, one), steps):
                    at = value.subs({s: v for s, v in point.items() if s != symbol})
                    point[symbol] = sp.floor(at) + sp.sign(step) if symbol.is_integer else at + step
                if not any(point[symbol].free_symbols for symbol, _ in (one, other)):
                    found = attempted(lambda point=point: self._complete(point), None)
                    if found is not None:
                        yield found

    def _meeting(self, one: sp.Expr, other: sp.Expr) -> tuple[tuple[sp.Symbol, sp.Expr], ...] | None:
        """Two symbols with values at which both expressions vanish, the first in terms of the second."""
        at_most = {symbol: values[0] for symbol, values in self.solved.items()}
        one, other = one.subs(at_most), other.subs(at_most)
        for first, second in itertools.permutations(self.free, 2):
            for value in zeros(one, first)[:1]:
                rest = other.subs(first, value)
                for last in zeros(rest, second)[:1]:
                    return (first, value), (second, last)
        return None

    def _random(self) -> Iterator[Point]:
        while True:
            yield self._draw()

    def _draw(self) -> Point:
        """Random values symbol by symbol, within the bounds that the conditions set given the values so far."""
        point: Point = {}
        order = list(self.free)
        self.random.shuffle(order)
        for symbol in order:
            lower, upper = self._bounds(symbol, point)
            for _ in range(60):
                value = self._value(symbol, lower, upper)
                if admits(symbol, value):
                    break
            point[symbol] = value
        return point

    def _bounds(self, symbol: sp.Symbol, point: Point) -> tuple[Any, Any]:
        lower, upper = -sp.oo, sp.oo
        for slope, edge in self._linear_bounds(symbol):
            slope, edge = slope.subs(point), edge.subs(point)
            if slope.free_symbols or edge.free_symbols or not edge.is_extended_real:
                continue
            if slope.is_positive and edge > lower:
                lower = edge
            elif slope.is_negative and edge < upper:
                upper = edge
        if symbol.is_nonnegative and lower < 0:
            lower = sp.Integer(0)
        if symbol.is_nonpositive and upper > 0:
            upper = sp.Integer(0)
        return lower, upper

    def _linear_bounds(self, symbol: sp.Symbol) -> list[tuple[sp.Expr, sp.Expr]]:
        """The orders among the conditions that are linear in a symbol: its slope, and where both sides are equal."""
        if symbol not in self._linear:
            found = []
            for relation in self.conditions:
                if isinstance(relation, (sp.Lt, sp.Le, sp.Gt, sp.Ge)) and symbol in relation.free_symbols:
                    gap = relation.gts - relation.lts
                    if gap.is_polynomial(symbol) and sp.degree(gap, symbol) == 1:
                        slope = sp.diff(gap, symbol)
                        found.append((slope, -gap.subs(symbol, 0) / slope))
            self._linear[symbol] = found
        return self._linear[symbol]

    def _value(self, symbol: sp.Symbol, lower: Any, upper: Any) -> sp.Expr:
        draw = self.random
        if symbol in self.sizes:
            return sp.Integer(draw.choice(_SIZES))
        if symbol.is_integer:
            return self._whole(symbol, lower, upper)
        if lower > -sp.oo and upper < sp.oo:
            return lower + (upper - lower) * sp.Rational(draw.randint(1, 999), 1000) if lower < upper else lower
        if lower > -sp.oo:
            value = lower + self._size(symbol)
        elif upper < sp.oo:
            value = upper - self._size(symbol)
        elif symbol.is_extended_real:
            value = self._size(symbol) * draw.choice([-1, 1])
        elif symbol.is_imaginary:
            value = sp.I * self._size(symbol) * draw.choice([-1, 1])
        else:
            value = self._size(symbol) * draw.choice([-1, 1])
            if draw.random() < 0.7:
                value += sp.I * self._size(symbol) * draw.choice([-1, 1])
        return value * sp.sqrt(2) if symbol.is_irrational else value

    def _whole(self, symbol: sp.Symbol, lower: Any, upper: Any) -> sp.Integer:
        far = 40 if self.nested else 300
        if symbol not in self.limits:
            far = 40 if symbol in self.tame else 2000
        reach = self.random.choice((9, 9, 9, 9, 9, 30, 30, 30, far, far))
        least = int(sp.ceiling(max(lower, -reach))) if lower > -sp.oo else -reach
        most = int(sp.floor(min(upper, least + reach))) if upper < sp.oo else max(reach, least + reach)
        return sp.Integer(self.random.randint(least, max(most, least)))

    def _size(self, symbol: sp.Symbol) -> sp.Expr:
        """A positive number: of ordinary size in half of the draws, up to 1e±30 in one of five."""
        chance = self.random.random()
        low, high = (-1, 1) if chance < 0.5 else (-4, 3) if chance < 0.8 else (-30, 29)
        if symbol in self.tame:
            low, high = (-1, 1) if chance < 0.8 else (-2, 2)
        value = sp.Rational(self.random.randint(101, 999), 100) * sp.Integer(10) ** self.random.randint(low, high - 1)
        if symbol in self.tame or low == -30:
            return value
        kind = self.random.random()
        if kind < 0.2:
            return value * self.random.choice(_IRRATIONAL)
        return value * sp.Rational(self.random.randint(6, 90), 77) if kind < 0.4 else value

    def _complete(self, point: Point) -> Point | None:
        """Add what follows from the equations, matrices and functions; None if the point is outside of the domain."""
        if any(symbol not in point for symbol in self.free):
            return None
        point = dict(point)
        for symbol in self.free:
            if symbol in self.sizes and not (point[symbol].is_Integer and 1 <= point[symbol] <= 8):
                point[symbol] = sp.Integer(self.random.choice(_SIZES))
            reach = 60 if self.nested else 1500
            if symbol in self.limits and point[symbol].is_Integer and abs(point[symbol]) > reach:
                return None
        for symbol, values in self.solved.items():
            if symbol in point:
                continue
            point[symbol] = self.random.choice(values).subs(point)
        if not all(admits(symbol, value) for symbol, value in point.items()):
            return None
        for function in self.functions:
            point[function] = function_values(function, self.random, self.smooth)
        for base in self.indexed:
            point[base] = Entries(base, self.random)
        if not self._add_matrices(point) or not self.entry_conditions.settle(point, self.random):
            return None
        return point if self.contains(point) else None

    def contains(self, point: Point) -> bool:
        """Whether assumptions and conditions are seen to allow the point."""
        if not all(admits(symbol, value) for symbol, value in point.items()):
            return False
        try:
            return all(truth(condition, point).value is True for condition in self.conditions)
        except NoValue:
            return False

    def _add_matrices(self, point: Point) -> bool:
        numbers = _numbers(point)
        for matrix in self.matrices:
            rows, columns = (sp.sympify(size).subs(numbers) for size in matrix.shape)
            if not (rows.is_Integer and columns.is_Integer and rows > 0 and columns > 0):
                return False
            facts = known_facts(matrix, self.matrix_facts)
            value = matrix_value(int(rows), int(columns), facts, self.random)
            if value is None:
                return False
            point[matrix] = value
        for element in self.elements:  # an entry outside of the matrix is no entry
            if not element.free_symbols <= set(numbers) | {element.parent, *element.parent.free_symbols}:
                continue
            row, column, *shape = (e.subs(numbers) for e in (*element.indices, *element.parent.shape))
            if not (row.is_Integer and column.is_Integer and 0 <= row < shape[0] and 0 <= column < shape[1]):
                return False
        values = {m: point[m] for m in self.matrices}
        for fact in self.matrix_facts:
            if fact.arguments[0] not in values:
                whole = explicit_matrix(fact.arguments[0], values, numbers)
                if not has_fact(sp.Matrix(whole), fact.function):
                    return False
        return True


def _numbers(point: Point) -> Point:
    return {key: value for key, value in point.items() if isinstance(key, sp.Symbol)}


def counterexample(point: Point) -> Point:
    """The values at a point, those of indexed unknowns entry by entry."""
    values: Point = {}
    for key, value in point.items():
        if isinstance(value, Entries):
            values |= {value.base[indices]: value.at(*indices) for indices in sorted(value.known)}
        elif not isinstance(key, UndefinedFunction) or isinstance(value, sp.Lambda):
            values[key] = value
    return values
