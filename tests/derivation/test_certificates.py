"""Certificates of orders between polynomials: random statements against what samples of them show."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import linprog

from kexue_lib.derivation._line import holds_on_the_line
from kexue_lib.derivation._multipliers import follows_by_multiple
from kexue_lib.derivation._products import _has_solution, follows_by_products

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


@pytest.mark.parametrize("seed", range(60))
def test_the_rational_simplex_agrees_with_scipy(seed: int) -> None:
    draw = random.Random(seed)
    equations, unknowns = draw.randint(1, 4), draw.randint(1, 5)
    rows = [[Fraction(draw.randint(-2, 2)) for _ in range(unknowns)] for _ in range(equations)]
    point = [Fraction(draw.randint(0, 2)) for _ in range(unknowns)]
    for row in rows:  # half of the programmes have a solution by construction, often a degenerate one
        row.append(sum(map(lambda a, b: a * b, row, point)) if seed % 2 else Fraction(draw.randint(-3, 3)))
    weights = [draw.randint(0, 1) for _ in range(unknowns)]
    matrix, right = np.array([row[:-1] for row in rows], float), np.array([row[-1] for row in rows], float)
    feasible = linprog(np.zeros(unknowns), A_eq=matrix, b_eq=right).status == 0
    best = linprog(-np.array(weights), A_eq=matrix, b_eq=right)
    assert _has_solution([row[:] for row in rows], None) is feasible
    positive = feasible and (best.status == 3 or best.fun < -1e-9)
    assert _has_solution([row[:] for row in rows], weights) is positive


@pytest.mark.parametrize("seed", range(30))
def test_products_of_conditions_are_found_and_nothing_is_proved_that_a_sample_refutes(seed: int) -> None:
    draw = random.Random(seed)
    number = lambda: sp.Rational(draw.randint(-3, 3), draw.randint(1, 2))
    unknowns = (x, y, z)[: draw.randint(1, 3)]
    sides = [sum((number() * s for s in unknowns), number()) for _ in range(3)]
    sides = [side for side in sides if side.free_symbols]
    given = [side >= 0 for side in sides]
    pairs = list(itertools.combinations_with_replacement([sp.Integer(1), *sides], 2))
    gap = sp.expand(sum(abs(number()) * a * b for a, b in draw.sample(pairs, min(3, len(pairs)))))
    assert follows_by_products(gap, False, given)
    generator, units = np.random.default_rng(seed), 8
    points = [tuple(map(int, generator.integers(-40, 41, size=3))) for _ in range(300)]
    values = [
        gap.subs(at)
        for point in points
        if all(side.subs(at := {s: sp.Rational(p, units) for s, p in zip((x, y, z), point)}) >= 0 for side in sides)
    ]
    if values:
        assert not follows_by_products(gap - min(values) - sp.Rational(1, 10**9), False, given)
        assert not follows_by_products(gap - min(values), True, given)


def test_products_are_strict_only_where_a_strict_condition_takes_part() -> None:
    assert follows_by_products(x * y, False, [x >= 0, y >= 0])
    assert not follows_by_products(x * y, True, [x >= 0, y >= 0])
    assert not follows_by_products(x * y, True, [x > 0, y >= 0])
    assert follows_by_products(x * y, True, [x > 0, y > 0])
    assert not follows_by_products(x**2, True, [x >= 0])
    assert not follows_by_products(x * y + y, True, [x > 0, sp.Eq(y, 0)])
    assert follows_by_products(1 + x - x * y, True, [x >= 0, y <= 1])
