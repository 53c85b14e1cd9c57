"""The best b against the equations that define it and a grid."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from scipy import integrate
from torch.nn import functional

from kexue_lib.distributions.squareplus import (
    B_CURVATURE,
    B_LEAST_SQUARES,
    B_MINIMAX,
    B_UPPER,
    optimal_b,
    squareplus,
    squareplus_gate,
    squareplus_grad,
)


def test_minimax_b_solves_the_two_equations():
    """Equal and opposite errors at 0 and at the place where the error is largest."""
    with mpmath.workdps(30):
        error = lambda b, x: mpmath.sqrt(x * x + b) / 2 - mpmath.log(2 * mpmath.cosh(x / 2))
        stationary = lambda b, x: x / mpmath.sqrt(x * x + b) - mpmath.tanh(x / 2)
        b, x = mpmath.findroot(lambda b, x: (error(b, 0) + error(b, x), stationary(b, x)), (1.52, 3.5))
        assert pytest.approx(float(b), rel=1e-15) == B_MINIMAX
        found, worst = optimal_b("softplus")
        assert found == pytest.approx(float(b), rel=1e-12)
        assert worst == pytest.approx(float(error(b, x)), rel=1e-12)


def test_least_squares_b_minimises_the_integral():
    with mpmath.workdps(25):
        tail = lambda b, x: b / 2 / (x + mpmath.sqrt(x * x + b)) - mpmath.log1p(mpmath.exp(-x))
        pieces = [0, 1, 2, 4, 8, 20, 60, mpmath.inf]
        b = mpmath.findroot(lambda b: mpmath.quad(lambda x: tail(b, x) / mpmath.sqrt(x * x + b), pieces), (1.24, 1.25))
        norm = mpmath.sqrt(2 * mpmath.quad(lambda x: tail(b, x) ** 2, pieces))
    assert pytest.approx(float(b), rel=1e-14) == B_LEAST_SQUARES
    assert optimal_b("softplus", "l2") == pytest.approx((float(b), float(norm)), rel=1e-12)


TARGETS = {
    "softplus": (squareplus, functional.softplus),
    "sigmoid": (squareplus_grad, torch.sigmoid),
    "gelu": (squareplus_gate, functional.gelu),
    "silu": (squareplus_gate, functional.silu),
}


@pytest.mark.parametrize("target", TARGETS)
def test_no_other_b_has_a_smaller_largest_error(target: str):
    ours, theirs = TARGETS[target]
    x = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    largest = lambda b: (ours(x, b) - theirs(x)).abs().max().item()
    b, error = optimal_b(target)
    assert largest(b) == pytest.approx(error, rel=1e-6)
    for other in (0.3, 0.99 * b, 1.01 * b, 1.2 * b, 8.0):
        assert largest(other) > error


def test_least_squares_fit_of_the_sigmoid():
    gap = lambda x, b: (squareplus_grad(torch.tensor(x, dtype=torch.float64), b).item() - 1 / (1 + math.exp(-x))) ** 2
    norm = lambda b: math.sqrt(2 * (integrate.quad(gap, 0, 30, (b,), limit=200)[0] + b * b / 16 / (3 * 30**3)))
    b, error = optimal_b("sigmoid", "l2")
    assert norm(b) == pytest.approx(error, rel=1e-5)
    assert min(norm(0.97 * b), norm(1.03 * b)) > error


def test_upper_bound_and_curvature_constants():
    x = torch.linspace(-100, 100, 100_001, dtype=torch.float64)
    above = lambda b: (squareplus(x, b) - functional.softplus(x, threshold=800)).min().item()
    assert above(B_UPPER) > -1e-15
    assert above(B_UPPER * (1 - 1e-9)) < 0
    leaf = torch.zeros((), dtype=torch.float64, requires_grad=True)
    second = lambda f: torch.autograd.functional.hessian(f, leaf)
    torch.testing.assert_close(second(lambda v: squareplus(v, B_CURVATURE)), second(functional.softplus))
