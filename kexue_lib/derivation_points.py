"""Points of the domain that the symbols' assumptions and the given conditions allow, structured ones first.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

import functools
import operator
import random
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction
from sympy.matrices.expressions.matexpr import MatrixElement

from kexue_lib.derivation_numerics import NoValue, truth, write_out

Point = dict[Any, Any]

_STRUCTURED = [sp.Integer(0), sp.Integer(1), sp.Integer(-1), sp.Rational(1, 2), sp.Rational(-1, 2), sp.Integer(2)]
_STRUCTURED += [sp.Integer(-2), sp.Integer(3), sp.Rational(1, 3), sp.Integer(4), sp.I, -sp.I, 1 + sp.I]
_IGNORED = {"commutative", "complex", "extended_real", "hermitian", "finite", "infinite"}
_MATRIX_FACTS = (sp.Q.symmetric, sp.Q.orthogonal, sp.Q.positive_definite, sp.Q.diagonal, sp.Q.invertible, sp.Q.unitary)


class Domain:
    """The values that the unknowns of a statement may take."""

    def __init__(self, statement: Any, given: Sequence[Any], seed: str) -> None:
        self.random = random.Random(seed)
        parts = [statement, *given]
        self.functions = sorted({a.func for part in parts for a in part.atoms(AppliedUndef)}, key=str)
        self.matrices = sorted({m for part in parts for m in part.atoms(sp.MatrixSymbol)}, key=str)
        labels = {base.label for part in parts for base in part.atoms(sp.IndexedBase)}
        names = {m.args[0] for m in self.matrices}
        bound = {base for part in parts for base in part.atoms(sp.IndexedBase)}
        self.indexed = sorted(bound, key=str)
        free = set().union(*(part.free_symbols for part in parts)) - labels - names - bound
        shapes = {sp.sympify(size) for matrix in self.matrices for size in matrix.shape}
        self.sizes = {symbol for size in shapes for symbol in size.free_symbols}
        free = {symbol for symbol in free if isinstance(symbol, sp.Symbol)} | self.sizes
        self.symbols = sorted(free, key=lambda s: (s.name, str(s._assumptions)))
        self.limits = set()
        for part in parts:
            for total in part.atoms(sp.Sum, sp.Product):
                for limit in total.limits:
                    self.limits |= set().union(*(bound.free_symbols for bound in limit[1:]))
        # narrow or wide integrands cost quadrature most of its digits
        self.tame = {
            symbol for part in parts for integral in part.atoms(sp.Integral) for symbol in integral.free_symbols
        }
        self.breaks = _break_points(parts)
        self.wide = all(_is_algebraic(part) for part in parts)
        self.matrix_facts = [fact for fact in given if isinstance(fact, sp.AppliedPredicate)]
        self.conditions = [fact for fact in given if fact not in self.matrix_facts]
        self.solved = self._solve_equations()
        self.free = [symbol for symbol in self.symbols if symbol not in self.solved]

    @property
    def is_empty(self) -> bool:
        """No unknowns at all: a statement about numbers."""
        return not (self.symbols or self.matrices or self.functions or self.indexed)

    def _solve_equations(self) -> dict[sp.Symbol, list[sp.Expr]]:
        """Each equation among the conditions gives one symbol as a function of the others."""
        solved: dict[sp.Symbol, list[sp.Expr]] = {}
        for condition in self.conditions:
            for equation in condition.args if isinstance(condition, sp.And) else [condition]:
                if not isinstance(equation, sp.Eq) or getattr(equation.lhs, "is_Matrix", False):
                    continue
                gap = equation.lhs - equation.rhs
                for symbol, values in solved.items():
                    gap = gap.subs(symbol, values[0])
                symbol, values = solve_for_one(gap, set(solved))
                if symbol is not None:
                    solved = {s: [v.subs(symbol, values[0]) for v in vs] for s, vs in solved.items()}
                    solved[symbol] = values
        return solved

    def points(self, count: int) -> Iterator[Point]:
        """Up to `count` different points of the domain: structured ones first, then random ones."""
        seen: set[str] = set()
        structured, drawn = self._structured(), self._random()
        for attempt in range(60 * count):
            candidate = next(structured, None) if attempt % 2 == 0 else None
            point = self._complete(candidate if candidate is not None else next(drawn))
            if point is None or str(point) in seen:
                if attempt > 300 + 60 * len(seen):
                    return
                continue
            seen.add(str(point))
            yield point
            if len(seen) == count:
                return

    def _structured(self) -> Iterator[Point]:
        for _ in range(40 if self.solved else 0):  # points of the equations that solving them may have lost
            yield {symbol: self.random.choice(_STRUCTURED) for symbol in self.symbols}
        values = [*_STRUCTURED[:3], *self.breaks, *_STRUCTURED[3:]]
        for i in range(60):
            if i % 2 == 0 and i // 2 < len(values):
                yield dict.fromkeys(self.free, values[i // 2])  # all symbols equal
            yield {symbol: self.random.choice(values) for symbol in self.free}
        for _ in range(20):  # two symbols equal, the others random
            point = self._draw()
            if point and len(self.free) > 1:
                one, other = self.random.sample(self.free, 2)
                point[one] = point[other]
                yield point

    def _random(self) -> Iterator[Point]:
        while True:
            yield self._draw() or {}

    def _draw(self) -> Point | None:
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
        for condition in self.conditions:
            for relation in condition.args if isinstance(condition, sp.And) else [condition]:
                if not isinstance(relation, (sp.Lt, sp.Le, sp.Gt, sp.Ge)) or symbol not in relation.free_symbols:
                    continue
                gap = (relation.gts - relation.lts).subs(point)
                if gap.free_symbols != {symbol} or not gap.is_polynomial(symbol) or sp.degree(gap, symbol) != 1:
                    continue
                slope = gap.coeff(symbol)
                edge = sp.nsimplify(-gap.subs(symbol, 0) / slope)
                if slope.is_positive and edge > lower:
                    lower = edge
                elif slope.is_negative and edge < upper:
                    upper = edge
        if symbol.is_nonnegative and lower < 0:
            lower = sp.Integer(0)
        if symbol.is_nonpositive and upper > 0:
            upper = sp.Integer(0)
        return lower, upper

    def _value(self, symbol: sp.Symbol, lower: Any, upper: Any) -> sp.Expr:
        draw = self.random
        if symbol in self.sizes:
            return sp.Integer(draw.randint(1, 3))
        if symbol.is_integer:
            reach = 9 if draw.random() < 0.6 else 30 if symbol in self.limits else 40
            least = int(max(lower, -reach)) if lower > -sp.oo else -reach
            most = int(min(upper, least + reach)) if upper < sp.oo else max(reach, least + reach)
            return sp.Integer(draw.randint(least, max(most, least)))
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

    def _size(self, symbol: sp.Symbol) -> sp.Rational:
        if self.wide and self.random.random() < 0.2:
            return sp.Integer(10) ** self.random.choice((-12, -9, -6, 5, 7, 9, 12)) * self.random.randint(1, 9)
        low, high = (-1, 1) if self.random.random() < 0.6 or symbol in self.tame else (-4, 3)
        exponent = self.random.randint(low, high - 1)
        return sp.Rational(self.random.randint(101, 999), 100) * sp.Integer(10) ** exponent

    def _complete(self, point: Point) -> Point | None:
        """Add what follows from the equations, matrices and functions; None if the point is outside of the domain."""
        if len(point) < len(self.free):
            return None
        point = dict(point)
        for symbol in self.free:
            if symbol in self.sizes and not (point[symbol].is_Integer and 1 <= point[symbol] <= 3):
                point[symbol] = sp.Integer(self.random.randint(1, 3))
            if symbol in self.limits and point[symbol].is_Integer and abs(point[symbol]) > 60:
                return None
        for symbol, values in self.solved.items():
            if symbol in point:
                continue
            value = self.random.choice(values).subs(point)
            point[symbol] = sp.nsimplify(value) if value.is_Rational else value
        if not all(admits(symbol, value) for symbol, value in point.items()):
            return None
        for function in self.functions:
            point[function] = self._function(function)
        for base in self.indexed:
            point[base] = Entries(base, self.random)
        if not self._add_matrices(point):
            return None
        try:
            if all(truth(substitute(condition, point)).value is True for condition in self.conditions):
                return point
        except (NoValue, TypeError):
            pass
        return None

    def _function(self, function: UndefinedFunction) -> sp.Lambda:
        """A random smooth function, so that an identity for unknown functions can be put to the test."""
        count = next(iter(function.nargs)) if function.nargs is not sp.S.Naturals0 else 1
        arguments = sp.symbols(f"t1:{count + 1}")
        coefficient = [sp.Rational(self.random.randint(-20, 20), 10) for _ in range(3 * count + 2)]
        body = coefficient[0] + sum(c * t for c, t in zip(coefficient[1:], arguments))
        body += sum(c * t**2 for c, t in zip(coefficient[1 + count :], arguments))
        body += coefficient[-1] * sp.Mul(*arguments)
        body += sp.exp(sum(c * t for c, t in zip(coefficient[1 + 2 * count :], arguments)) / 4)
        return sp.Lambda(arguments, sp.exp(body / 8) if function.is_positive else body)

    def _add_matrices(self, point: Point) -> bool:
        for matrix in self.matrices:
            rows, columns = (sp.sympify(size).subs(point) for size in matrix.shape)
            if not (rows.is_Integer and columns.is_Integer and rows > 0 and columns > 0):
                return False
            facts = {fact.function for fact in self.matrix_facts if fact.arg == matrix}
            point[matrix] = self._matrix(int(rows), int(columns), facts)
            if sp.Q.invertible in facts and point[matrix].det() == 0:
                return False
        return True

    def _matrix(self, rows: int, columns: int, facts: set[Any]) -> sp.ImmutableMatrix:
        real = self.random.random() < 0.5 or bool(facts - {sp.Q.invertible})

        parts = [
            sp.Rational(self.random.randint(-12, 12), self.random.randint(1, 5)) for _ in range(2 * rows * columns)
        ]
        if not real:
            parts = [part + sp.I * other for part, other in zip(parts, reversed(parts))]
        value = sp.Matrix(rows, columns, parts[: rows * columns])
        if sp.Q.symmetric in facts:
            value = value + value.T
        if sp.Q.diagonal in facts:
            value = sp.diag(*value.diagonal())
        if sp.Q.positive_definite in facts:
            value = value * value.T + sp.eye(rows)
        if facts & {sp.Q.orthogonal, sp.Q.unitary}:  # Cayley transform of a skew matrix
            skew = value - value.T
            value = (sp.eye(rows) - skew) * (sp.eye(rows) + skew).inv()
        return sp.ImmutableMatrix(value)


def _break_points(parts: Sequence[Any]) -> list[sp.Expr]:
    """Numbers at which the pieces of a statement change, and their neighbours."""
    kinds = (Relational, sp.Abs, sp.Max, sp.Min, sp.sign, sp.Heaviside, sp.KroneckerDelta)
    edges = {number for part in parts for atom in part.atoms(*kinds) for number in atom.atoms(sp.Rational)}
    edges = sorted(edge for edge in edges if abs(edge) > 1)[:4]
    return [edge + side for edge in edges for side in (0, 1, -1)]


def _is_algebraic(statement: Any) -> bool:
    """Only sums, products, rational powers and absolute values: cheap to evaluate far out."""
    tame = (sp.Abs, sp.Max, sp.Min, sp.sign, sp.re, sp.im, sp.conjugate)
    functions = statement.atoms(sp.Function)
    return (
        all(isinstance(function, tame) for function in functions)
        and all(power.exp.is_Rational and abs(power.exp) <= 8 for power in statement.atoms(sp.Pow))
        and not statement.has(sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.MatrixSymbol, sp.IndexedBase)
    )


def solve_for_one(gap: sp.Expr, excluded: set[sp.Symbol]) -> tuple[sp.Symbol | None, list[sp.Expr]]:
    """A symbol that `gap == 0` determines by the others, linear ones preferred, and its possible values."""
    candidates = sorted(
        gap.free_symbols - excluded, key=lambda s: (not sp.diff(gap, s).is_number, not _linear(gap, s), s.name)
    )
    for symbol in candidates:
        try:
            values = sp.solve(gap, symbol)
        except NotImplementedError:
            continue
        values = [value for value in values if isinstance(value, sp.Expr) and not value.has(symbol)]
        if values:
            return symbol, values
    return None, []


def _linear(expression: sp.Expr, symbol: sp.Symbol) -> bool:
    return bool(expression.is_polynomial(symbol)) and sp.degree(expression, symbol) == 1


def admits(symbol: Any, value: sp.Expr) -> bool:
    """Whether the symbol's assumptions allow the value."""
    if not isinstance(symbol, sp.Symbol):
        return True
    if value.is_finite is False or value.has(sp.nan, sp.zoo, sp.oo):
        return False
    for fact, wanted in symbol.assumptions0.items():
        if fact in _IGNORED:
            continue
        actual = getattr(value, f"is_{fact}", None)
        if actual is not None and actual != wanted:
            return False
        if actual is None and fact in ("real", "positive", "negative", "nonnegative", "nonzero", "integer"):
            return False
    return True


def counterexample(point: Point) -> Point:
    """The values at a point, those of indexed unknowns entry by entry."""
    values = {key: value for key, value in point.items() if not isinstance(value, Entries)}
    for entries in (value for value in point.values() if isinstance(value, Entries)):
        values |= entries.known
    return values


def is_far(point: Point) -> bool:
    """Whether some coordinate is so large that two sides may meet beyond all digits."""
    return any(isinstance(v, sp.Expr) and v.is_number and abs(v.evalf(8)) > 30 for v in point.values())


def with_dummies(statement: Any) -> Any:
    """Rename bound variables, so that a value for a free symbol of the same name cannot reach them."""

    def renamed(expression: Any) -> Any:
        if isinstance(expression, sp.Limit):
            body, variable, *rest = expression.args
            dummy = sp.Dummy(variable.name, **variable._assumptions_orig)
            return sp.Limit(body.xreplace({variable: dummy}), dummy, *rest)
        return expression.as_dummy()

    if isinstance(statement, (Relational, BooleanFunction)):
        return statement.func(*map(with_dummies, statement.args), evaluate=False)
    return statement.replace(lambda e: isinstance(e, (sp.Sum, sp.Product, sp.Integral, sp.Limit)), renamed)


def substitute(statement: Any, point: Point) -> Any:
    """The statement at a point, without free symbols; relations stay unevaluated, as SymPy would round."""
    if isinstance(statement, (Relational, BooleanFunction)):
        return statement.func(*(substitute(part, point) for part in statement.args), evaluate=False)
    for function, value in point.items():
        if isinstance(function, UndefinedFunction):
            statement = statement.replace(function, value)
    if statement.has(sp.Derivative, sp.Subs):
        statement = statement.replace(
            lambda e: isinstance(e, (sp.Derivative, sp.Subs)), lambda e: e.doit(deep=isinstance(e, sp.Subs))
        )
    sizes = {k: v for k, v in point.items() if isinstance(k, sp.Symbol)}
    matrices = {k: v for k, v in point.items() if isinstance(k, sp.MatrixSymbol)}
    if matrices:
        elements = {e: matrices[e.parent][e.i, e.j] for e in statement.atoms(MatrixElement) if e.parent in matrices}
        return _with_matrices(statement.xreplace(elements), matrices, sizes)
    return _with_entries(statement.xreplace(sizes), point)


def _with_matrices(expression: Any, matrices: Point, sizes: Point) -> Any:
    """Put explicit matrices in and evaluate from the leaves up."""
    if expression in matrices:
        return matrices[expression]
    if isinstance(expression, (sp.Identity, sp.ZeroMatrix, sp.OneMatrix)):
        return expression.subs(sizes).as_explicit()
    if not expression.args or not expression.has(sp.MatrixExpr):
        return expression.xreplace(sizes)
    arguments = [_with_matrices(argument, matrices, sizes) for argument in expression.args]
    if isinstance(expression, (sp.MatAdd, sp.MatMul)):
        combine = operator.add if isinstance(expression, sp.MatAdd) else operator.mul
        return _expanded(functools.reduce(combine, arguments))
    if isinstance(expression, (sp.Inverse, sp.MatPow)):
        base, exponent = arguments[0], int(arguments[1]) if len(arguments) > 1 else -1
        if exponent < 0:
            determinant = sp.expand(base.det())
            if determinant == 0:
                raise NoValue("a singular matrix")
            base = _expanded(base.adjugate() / determinant)
        return _expanded(base ** abs(exponent))
    methods = {sp.Transpose: "transpose", sp.Adjoint: "adjoint", sp.Trace: "trace", sp.Determinant: "det"}
    if expression.func in methods:
        return getattr(arguments[0], methods[expression.func])()
    done = expression.func(*arguments)
    return done.doit() if hasattr(done, "doit") else done


def _expanded(matrix: Any) -> Any:
    return matrix.applyfunc(sp.expand) if hasattr(matrix, "applyfunc") else matrix


class Entries:
    """Random values for the entries of an indexed unknown x[i], drawn when first asked for."""

    def __init__(self, base: sp.IndexedBase, draw: random.Random) -> None:
        self.base, self.seed, self.known = base, draw.randint(0, 2**60), {}
        self.equal = draw.random() < 0.15

    def __getitem__(self, entry: sp.Indexed) -> sp.Expr:
        if entry not in self.known:
            draw = random.Random(f"{self.seed} {'' if self.equal else entry.indices}")
            for _ in range(100):
                value = sp.Rational(draw.randint(-400, 400), 10 ** draw.randint(1, 2))
                if not self.base.is_real:
                    value += sp.I * sp.Rational(draw.randint(-40, 40), 10)
                value = value if not entry.is_integer else sp.Integer(draw.randint(-9, 9))
                if admits(self.base.label, value):
                    break
            self.known[entry] = value
        return self.known[entry]


def _with_entries(statement: Any, point: Point) -> Any:
    """Values for the entries x[i] of indexed unknowns, once the sums over them are written out."""
    if not statement.has(sp.Indexed):
        return statement
    statement = statement.replace(lambda e: isinstance(e, (sp.Sum, sp.Product)), lambda e: write_out(e, 60))
    return statement.xreplace({entry: point[entry.base][entry] for entry in statement.atoms(sp.Indexed)})
