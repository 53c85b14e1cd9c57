"""Values for what a statement leaves unknown: numbers, entries of indexed unknowns, functions and matrices.

Families of values, so that a statement that holds for the tame ones alone does not pass.
"""

import random
from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy.core.function import UndefinedFunction

_IGNORED = {"commutative", "complex", "extended_real", "hermitian", "finite", "infinite"}
_STRICT = ("real", "positive", "negative", "nonnegative", "nonpositive", "nonzero", "integer", "extended_positive")


def admits(symbol: Any, value: Any) -> bool:
    """Whether the symbol's assumptions allow the value."""
    if not isinstance(symbol, sp.Symbol):
        return True
    if value.is_finite is False or value.has(sp.nan, sp.zoo, sp.oo):
        return False
    for fact, wanted in symbol._assumptions_orig.items():  # what was declared; the rest follows from it
        if fact in _IGNORED:
            continue
        actual = getattr(value, f"is_{fact}", None)
        if actual is not None and actual != wanted:
            return False
        if actual is None and fact in _STRICT:
            return False
    return True


class Entries:
    """Values for the entries of an indexed unknown x[i, …], drawn when first asked for."""

    STYLES = ("plain", "plain", "equal", "alternating", "large", "tiny", "whole", "one", "spread")

    def __init__(self, base: sp.IndexedBase, draw: random.Random, style: str | None = None) -> None:
        self.base, self.seed = base, draw.randint(0, 2**60)
        self.style = style or draw.choice(self.STYLES)
        self.special = draw.randint(1, 4)
        self.known: dict[tuple[int, ...], sp.Expr] = {}
        self.scale: sp.Expr = sp.Integer(1)
        self.facts = sp.Symbol("x", **base.assumptions0)

    def at(self, *indices: int) -> sp.Expr:
        """The exact value of one entry."""
        key = tuple(int(i) for i in indices)
        if key not in self.known:
            draw = random.Random(f"{self.seed} {'' if self.style in ('equal', 'alternating') else key}")
            value = next(v for v in (self._draw(draw, key, i) for i in range(200)) if admits(self.facts, v))
            if self.style == "alternating" and sum(key) % 2 and admits(self.facts, -value):
                value = -value
            self.known[key] = value * self.scale
        return self.known[key]

    def put(self, key: tuple[int, ...], value: sp.Expr) -> None:
        """Give one entry a value."""
        self.known[key] = value

    def scale_by(self, factor: sp.Expr) -> None:
        """Multiply every entry by a number."""
        self.known = {key: value * factor for key, value in self.known.items()}
        self.scale = self.scale * factor

    def _draw(self, draw: random.Random, key: tuple[int, ...], attempt: int) -> sp.Expr:
        value = sp.Rational(draw.randint(-400, 400), 10 ** draw.randint(1, 2))
        if attempt < 100:
            value *= {"large": 10**4, "tiny": sp.Rational(1, 10**4)}.get(self.style, 1)
        if self.style == "spread":
            value *= sp.Integer(10) ** draw.randint(-3, 3)
        if self.style == "one" and key[-1] != self.special and attempt == 0:
            value = sp.Integer(0)
        if self.style == "whole" or self.facts.is_integer:
            value = sp.Integer(draw.randint(-9, 9))
        if attempt % 2 and value.is_negative:
            value = -value
        if not self.facts.is_extended_real and draw.random() < 0.5:
            value += sp.I * sp.Rational(draw.randint(-40, 40), 10)
        return value


def function_values(function: UndefinedFunction, draw: random.Random, smooth: bool) -> sp.Lambda:
    """A random function: of either sign, steep or flat, complex where nothing forbids it, with jumps if not smooth."""
    count = next(iter(function.nargs)) if function.nargs is not sp.S.Naturals0 else 1
    arguments = sp.symbols(f"t1:{count + 1}")
    coefficient = [sp.Rational(draw.randint(-20, 20), 10) for _ in range(3 * count + 2)]
    body = coefficient[0] + sum(c * t for c, t in zip(coefficient[1:], arguments))
    body += sum(c * t**2 for c, t in zip(coefficient[1 + count :], arguments))
    body += coefficient[-1] * sp.Mul(*arguments)
    kind = draw.choice(("wave", "growth", "polynomial", "shifted"))
    inner = sum(c * t for c, t in zip(coefficient[1 + 2 * count :], arguments)) + sp.Rational(1, 7)
    body += {"wave": 3 * sp.cos(inner), "growth": sp.exp(inner / 4), "shifted": -50}.get(kind, 0)
    facts = sp.Symbol("f", **(getattr(function, "_kwargs", None) or {}))
    if not smooth and draw.random() < 0.4:
        body = sp.floor(body)
    if facts.is_integer:
        body = sp.floor(body)
    if facts.is_positive:
        body = sp.exp(body / 8)
    elif facts.is_nonnegative:
        body = body**2
    elif not facts.is_extended_real and draw.random() < 0.6:
        body += sp.I * (coefficient[1] + coefficient[0] * arguments[0] / 2)
    return sp.Lambda(arguments, body)


def matrix_value(rows: int, columns: int, facts: set[Any], draw: random.Random) -> sp.ImmutableMatrix | None:
    """A random matrix with the properties asked for; None where this draw does not have them."""
    build = lambda: sp.Matrix(
        rows, columns, [sp.Rational(draw.randint(-12, 12), draw.randint(1, 5)) for _ in range(rows * columns)]
    )
    value = build()
    style = draw.choice(("dense", "dense", "dense", "low rank", "nilpotent", "small", "large", "identity"))
    if style == "low rank" and min(rows, columns) > 1 and not facts:
        value = value[:, :1] * build()[:1, :]
    elif style == "nilpotent" and rows == columns and not facts:
        value = sp.Matrix(rows, columns, lambda i, j: value[i, j] if j > i else 0)
    elif style == "identity" and rows == columns and not facts:
        value = sp.eye(rows) * value[0, 0]
    if style == "dense" and facts <= {sp.Q.invertible, sp.Q.symmetric, sp.Q.singular}:
        value = value + sp.I * build() if draw.random() < 0.5 else value
    value = _shaped(value, facts, draw)
    if style in ("small", "large") and not facts & {sp.Q.orthogonal, sp.Q.unitary}:
        value = value * (sp.Rational(1, 50) if style == "small" else 50)
    return sp.ImmutableMatrix(value) if all(has_fact(value, fact) for fact in facts) else None


def _shaped(value: sp.Matrix, facts: set[Any], draw: random.Random) -> sp.Matrix:
    size = value.shape[0]
    if facts & {sp.Q.orthogonal, sp.Q.unitary}:
        return _orthogonal(value, facts, draw)
    if sp.Q.symmetric in facts:
        value = value + value.T
    if sp.Q.lower_triangular in facts:
        value = sp.Matrix(size, size, lambda i, j: value[i, j] if j <= i else 0)
    if sp.Q.upper_triangular in facts:
        value = sp.Matrix(size, size, lambda i, j: value[i, j] if j >= i else 0)
    if sp.Q.diagonal in facts:
        value = sp.diag(*value.diagonal())
    if sp.Q.positive_definite in facts:
        value = value * value.T / 20 + sp.eye(size) * sp.Rational(draw.choice((1, 1, 20, 200)), 100)
    if sp.Q.singular in facts:
        value = value - value[:, size - 1] * sp.ones(1, size) / size if size > 1 else value * 0
        if not has_fact(value, sp.Q.singular):
            value[:, size - 1] = value[:, 0] * draw.randint(0, 2)
    return value


def _orthogonal(value: sp.Matrix, facts: set[Any], draw: random.Random) -> sp.Matrix:
    """Cayley transforms, and reflections, whose determinant is -1; symmetric ones are reflections."""
    size = value.shape[0]
    v = value[:, 0] if any(value[:, 0]) else sp.ones(size, 1)
    reflection = sp.eye(size) - 2 * v * v.H / (v.H * v)[0]
    if facts & {sp.Q.symmetric, sp.Q.diagonal, sp.Q.positive_definite}:
        signs = [draw.choice((-1, 1)) for _ in range(size)]
        return sp.diag(*signs) if sp.Q.diagonal in facts else draw.choice((1, -1)) * reflection
    skew = value - value.T
    if sp.Q.unitary in facts:
        skew = skew + sp.I * (value + value.T)
    turn = (sp.eye(size) - skew) * (sp.eye(size) + skew).inv()
    turn = turn.applyfunc(lambda entry: sp.expand(entry, complex=True)) if sp.Q.unitary in facts else turn
    return turn if draw.random() < 0.5 or sp.Q.unitary in facts else turn * reflection


def has_fact(value: Any, fact: Any) -> bool:
    """Whether an explicit matrix has a property, decided exactly."""
    size, simple = value.shape[0], lambda m: m.applyfunc(sp.expand)
    eye = sp.eye(size)
    tests = {
        sp.Q.symmetric: lambda: value == value.T,
        sp.Q.orthogonal: lambda: simple(value.T * value) == eye and not value.has(sp.I),
        sp.Q.unitary: lambda: simple(value.H * value) == eye,
        sp.Q.diagonal: value.is_diagonal,
        sp.Q.invertible: lambda: sp.expand(value.det()) != 0,
        sp.Q.singular: lambda: sp.expand(value.det()) == 0,
        sp.Q.positive_definite: lambda: value == value.T and all(value[:i, :i].det() > 0 for i in range(1, size + 1)),
        sp.Q.real_elements: lambda: not value.has(sp.I),
        sp.Q.lower_triangular: lambda: value.is_lower,
        sp.Q.upper_triangular: lambda: value.is_upper,
    }
    return bool(tests[fact]())


def explicit_matrix(expression: Any, matrices: dict[Any, Any], sizes: dict[Any, Any]) -> Any:
    """A matrix expression with explicit matrices put in."""
    if expression in matrices:
        return matrices[expression]
    if isinstance(expression, (sp.Identity, sp.ZeroMatrix, sp.OneMatrix)):
        return expression.subs(sizes).as_explicit()
    if not expression.args or not expression.has(sp.MatrixExpr):
        return expression.subs(sizes)
    arguments = [explicit_matrix(argument, matrices, sizes) for argument in expression.args]
    if isinstance(expression, (sp.MatAdd, sp.MatMul)):
        total = arguments[0]
        for argument in arguments[1:]:
            total = total + argument if isinstance(expression, sp.MatAdd) else total * argument
        return total.applyfunc(sp.expand)
    if isinstance(expression, sp.Transpose):
        return arguments[0].T
    if isinstance(expression, sp.Adjoint):
        return arguments[0].H
    if isinstance(expression, sp.Inverse):
        return arguments[0].inv()
    done = expression.func(*arguments).doit()
    return done.as_explicit() if hasattr(done, "as_explicit") else done


def known_facts(matrix: Any, given: Sequence[Any]) -> set[Any]:
    """The predicates that the conditions state of a matrix."""
    return {fact.function for fact in given if isinstance(fact, sp.AppliedPredicate) and fact.arguments[0] == matrix}
