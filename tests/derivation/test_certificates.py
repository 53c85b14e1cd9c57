"""Polynomials on the line and under one quadratic condition: random statements against what samples of them show."""

import itertools
import random

import numpy as np
import pytest
import sympy as sp

from kexue_lib.derivation._line import holds_on_the_line
from kexue_lib.derivation._multipliers import follows_by_multiple

x, y, z = sp.symbols("x y z", real=True)


def _polynomial(draw: random.Random, degree: int) -> sp.Poly:
    """Roots that are rational, repeated, irrational or not real."""
    parts = [x - draw.randint(-3, 3), 2 * x - draw.randint(-5, 5), x**2 - draw.randint(1, 7), x**2 + x + 1]
    return sp.Poly(draw.choice((1, -1)) * sp.prod(draw.choice(parts) for _ in range(degree)), x)


def _samples(polynomials: list[sp.Poly]) -> list[sp.Expr]:
    """All real roots, exactly, and points between and beyond them."""
    roots = sorted({root for p in polynomials for root in sp.real_roots(p)}, key=lambda r: r.evalf(30))
    near = [sp.Rational(str(root.evalf(20))) for root in roots]
    between = [(one + other) / 2 for one, other in itertools.pairwise(near)]
    return [*roots, near[0] - 1, near[-1] + 1, *between] if roots else [sp.Integer(0)]


@pytest.mark.parametrize("seed", range(40))
def test_the_line_agrees_with_exact_samples(seed: int) -> None:
    draw = random.Random(seed)
    one, other = _polynomial(draw, draw.randint(1, 3)), _polynomial(draw, draw.randint(1, 3))
    kinds = (sp.Gt, sp.Ge, sp.Lt, sp.Le, sp.Eq, sp.Ne)
    statement = draw.choice(kinds)(one.as_expr(), 0, evaluate=False)
    condition = draw.choice(kinds)(other.as_expr(), 0, evaluate=False)
    exact = lambda relation, at: bool(relation.func(sp.simplify(relation.lhs.subs(x, at)), 0))
    true = all(exact(statement, at) or not exact(condition, at) for at in _samples([one, other]))
    assert holds_on_the_line(statement, [condition]) is true


def test_the_line_needs_one_real_unknown_and_rational_functions() -> None:
    w = sp.Symbol("w")
    assert holds_on_the_line(sp.Ge(1 / (x**2 + 1), 0, evaluate=False), [])
    assert not holds_on_the_line(sp.Gt(1 / x**2, 0, evaluate=False), [])  # undefined at zero
    assert not holds_on_the_line(sp.Ge(w**2 + 1, 0, evaluate=False), [])
    assert not holds_on_the_line(sp.Ge(x**2 + y**2, 0, evaluate=False), [])
    assert not holds_on_the_line(sp.Ge(sp.exp(x), 0, evaluate=False), [])


@pytest.mark.parametrize("seed", range(30))
def test_a_multiple_is_found_where_there_is_one_and_never_proves_what_a_sample_refutes(seed: int) -> None:
    draw = random.Random(seed)
    number = lambda: sp.Rational(draw.randint(-4, 4), draw.randint(1, 2))
    unknowns = (x, y, z)[: draw.randint(1, 3)]
    linear = lambda: sum((number() * s for s in unknowns), number())
    known = sum(number() * a * b for a in unknowns for b in unknowns) + linear()
    squares, multiple = sum(linear() ** 2 for _ in range(len(unknowns) + 1)), abs(number())
    gap = squares + multiple * known
    if known.free_symbols & gap.free_symbols:
        assert follows_by_multiple(gap, False, [sp.Ge(known, 0, evaluate=False)])
        assert follows_by_multiple(gap, False, [sp.Eq(known, 0, evaluate=False)])
    points = np.random.default_rng(seed).normal(scale=4, size=(4000, len(unknowns))).T
    value = lambda e: np.broadcast_to(sp.lambdify(unknowns, e)(*points), points.shape[1:])
    lowered = gap - sp.Rational(draw.randint(1, 30))
    if follows_by_multiple(lowered, False, [sp.Ge(known, 0, evaluate=False)]):
        assert np.all(value(lowered)[value(known) >= 0] >= -1e-9)
