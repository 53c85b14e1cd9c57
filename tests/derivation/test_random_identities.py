"""Identities drawn at random are never called false, and their disturbances are never accepted."""

from typing import Any

import pytest
import sympy as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kexue_lib.derivation import Derivation, DerivationError, VacuousClaim

# The time limit may strike inside hypothesis's own callback of the garbage collector; it strikes again after it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


x, y = sp.symbols("x y", real=True)
a, b = sp.symbols("a b", positive=True)
k = sp.Symbol("k", integer=True)
n = sp.Symbol("n", integer=True, positive=True)
X, Y = sp.IndexedBase("X", real=True), sp.IndexedBase("Y", real=True)
DRAWN = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
REWRITINGS = [sp.expand, sp.factor, sp.together, sp.powsimp, lambda e: e.rewrite(sp.exp), lambda e: e.rewrite(sp.sin)]


@st.composite
def expressions(draw: Any, depth: int = 2) -> Any:
    """Small expressions in x and y (real) and a (positive), defined everywhere."""
    if depth == 0 or (draw(st.booleans()) and depth < 2):
        return draw(st.sampled_from([x, y, a, sp.Integer(2), sp.Rational(1, 3), x + 1, a + 2]))
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    grown = [left + right, left * right, left - right, left**2, left / (1 + a), left / (1 + y**2)]
    grown += [sp.exp(left / 4), sp.sin(left), sp.cos(left), sp.sqrt(left**2 + a), sp.Abs(left), sp.Max(left, right)]
    return draw(st.sampled_from(grown))


def by_rule(u: Any, v: Any) -> list[tuple[Any, Any]]:
    """Identities of real expressions u and v that no rewriting of SymPy's produced."""
    return [
        (sp.sin(u + v), sp.sin(u) * sp.cos(v) + sp.cos(u) * sp.sin(v)),
        (sp.Abs(u * v), sp.Abs(u) * sp.Abs(v)),
        (sp.Max(u, v) + sp.Min(u, v), u + v),
        (2 * sp.Max(u, v), u + v + sp.Abs(u - v)),
        (sp.exp(u + v), sp.exp(u) * sp.exp(v)),
        (sp.sqrt(u**2 + v**2 + 2 * u * v), sp.Abs(u + v)),
        (sp.log(sp.exp(u) + sp.exp(v)), u + sp.log(1 + sp.exp(v - u))),
        (sp.cos(u) ** 2 - sp.sin(u) ** 2, sp.cos(2 * u)),
        (1 / (1 + sp.exp(-u)), (1 + sp.tanh(u / 2)) / 2),
        (sp.Piecewise((u, u > v), (v, True)), sp.Max(u, v)),
    ]


def over_entries(f: Any, g: Any, c: Any) -> list[tuple[Any, Any, Any]]:
    """Identities of sums of any length over the terms f and g: both sides, and a side that is off by one index."""
    total = lambda term, first=1, last=n: sp.Sum(term, (k, first, last))
    return [
        (total(f + c * g), total(f) + c * total(g), total(f) + c * total(g, 1, n - 1)),
        (total(f), total(f, 0, n) - f.subs(k, 0), total(f, 0, n - 1)),
        (total(f) + f.subs(k, n + 1), total(f, 1, n + 1), total(f, 1, n)),
        (total(f), total(f.subs(k, n + 1 - k)), total(f.subs(k, n - k))),
        (total(f.subs(k, k + 1) - f), f.subs(k, n + 1) - f.subs(k, 1), f.subs(k, n) - f.subs(k, 1)),
    ]


def refusal(left: Any, right: Any) -> DerivationError | None:
    """Why the equation is refused, None where it is accepted."""
    try:
        Derivation("demo", time_limit=0.5).equal("drawn", left, right)
    except DerivationError as refused:
        return refused
    return None


def never_false(left: Any, right: Any) -> None:
    refused = refusal(left, right)
    assert refused is None or isinstance(refused, VacuousClaim) or "could not decide" in str(refused), refused


def never_accepted(left: Any, right: Any) -> None:
    refused = refusal(left, right)
    assert refused is not None
    assert not isinstance(refused, VacuousClaim)


def disturbances(value: Any) -> list[Any]:
    """The value with an error in a late digit, far out, at one point only, or in its sign."""
    vanishing = sp.Mul(*(x - q for q in range(-3, 4)))
    return [
        value + sp.Rational(1, 10**12),
        value + sp.Rational(1, 10**25) * (1 + x**2),
        value + vanishing,
        value + sp.sin(10**6 * sp.pi * x),
        value + sp.Max(x - 10**5, 0),
        value + sp.Piecewise((1, sp.Eq(x, sp.Rational(355, 113))), (0, True)),
        -value - 1 - value**2,
    ]


@DRAWN
@given(expression=expressions(), which=st.integers(0, len(REWRITINGS) - 1), error=st.integers(0, 6))
def test_rewritten_expressions(expression, which, error):
    rewritten = REWRITINGS[which](expression)
    never_false(expression, rewritten)
    never_accepted(expression, disturbances(rewritten)[error])


@DRAWN
@given(u=expressions(depth=1), v=expressions(depth=1), which=st.integers(0, 9), error=st.integers(0, 6))
def test_identities_by_rule(u, v, which, error):
    left, right = by_rule(u, v)[which]
    never_false(left, right)
    never_accepted(left, disturbances(right)[error])


@DRAWN
@given(
    f=st.sampled_from([X[k], X[k] ** 2, X[k] * Y[k], sp.exp(X[k]), a * X[k] + k, sp.Abs(X[k] - y)]),
    g=st.sampled_from([Y[k], sp.sin(Y[k]), k * Y[k] + 1]),
    c=st.sampled_from([x, a, sp.Integer(-3), sp.sqrt(2)]),
    which=st.integers(0, 4),
)
def test_sums_of_any_length(f, g, c, which):
    left, right, shifted = over_entries(f, g, c)[which]
    never_false(left, right)
    never_accepted(left, shifted)


@pytest.mark.parametrize("power", [3, 10, 20, 30, 40, 45, 48])
def test_error_in_a_late_digit(power):
    never_accepted(sp.cosh(x), (sp.exp(x) + sp.exp(-x)) / 2 * (1 + sp.Rational(1, 10**power)))
    never_accepted(sp.sin(1) ** 2, 1 - sp.cos(1) ** 2 + sp.Rational(1, 10**power))
