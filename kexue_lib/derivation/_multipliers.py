"""Orders between polynomials of degree two under a condition of degree two: a multiple of it makes a sum of squares.

If d - m c >= 0 everywhere, then d >= 0 wherever c = 0, and, for m >= 0, wherever c >= 0. With homogeneous coordinates
d - m c is a quadratic form, and the multiples for which it is non-negative are an interval: they are looked for at the
roots of its determinant in m, and between them. For one condition that holds strictly somewhere such a multiple
exists whenever the order is true (the S-lemma).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation._given import parts

_MOST = 5  # unknowns


def follows_by_multiple(gap: sp.Expr, strict: bool, given: Sequence[Any]) -> bool:
    """Whether `gap > 0` (`>= 0` if not strict) is proved by adding a multiple of one of the conditions."""
    gap = sp.expand(gap)
    symbols = sorted(gap.free_symbols, key=str)
    for condition in parts(given):
        if not isinstance(condition, (sp.Eq, sp.Gt, sp.Ge, sp.Lt, sp.Le)) or getattr(condition.lhs, "is_Matrix", False):
            continue
        equation = isinstance(condition, sp.Eq)
        known = sp.expand(condition.lhs - condition.rhs if equation else condition.gts - condition.lts)
        unknowns = sorted({*symbols, *known.free_symbols}, key=str)
        if not (known.free_symbols & gap.free_symbols) or len(unknowns) > _MOST:
            continue
        forms = [_form(expression, unknowns) for expression in (gap, known)]
        if None in forms:
            continue
        sharp = isinstance(condition, (sp.Gt, sp.Lt))
        for multiple in _multiples(*forms):
            if not (equation or multiple.is_nonnegative):
                continue
            needed = strict and not (sharp and multiple.is_positive)
            if _is_nonnegative(forms[0] - multiple * forms[1], needed):
                return True
    return False


def _form(expression: sp.Expr, unknowns: Sequence[sp.Symbol]) -> sp.Matrix | None:
    """The symmetric matrix of a polynomial of degree two in (1, x, y, ...), None where it is none."""
    if not all(s.is_extended_real for s in unknowns) or not expression.is_polynomial(*unknowns):
        return None
    polynomial = sp.Poly(expression, *unknowns)
    if polynomial.total_degree() > 2 or not all(c.is_number and c.is_real for c in polynomial.coeffs()):
        return None
    one = sp.Dummy()
    homogeneous = polynomial.as_expr() if polynomial.total_degree() == 0 else polynomial.homogenize(one).as_expr()
    homogeneous = sp.expand(homogeneous * one ** (2 - min(polynomial.total_degree(), 2)))
    return sp.hessian(homogeneous, [one, *unknowns]) / 2


def _multiples(form: sp.Matrix, known: sp.Matrix) -> Iterator[sp.Expr]:
    m = sp.Dummy("m", real=True)
    determinant = sp.Poly(sp.expand((form - m * known).det(method="berkowitz")), m, extension=True)
    if determinant.is_zero:
        return
    if determinant.degree() > 0:
        for factor, _ in determinant.factor_list()[1]:
            if factor.degree() <= 2:
                yield from (root for root in sp.roots(factor) if root.is_real)
    numeric = sp.Poly(determinant.sqf_part().as_expr().evalf(60), m)
    ends = sorted(sp.re(root) for root in numeric.nroots(n=20, maxsteps=200) if abs(sp.im(root)) < 1e-9)
    near = sorted([sp.Integer(0), *(sp.Rational(str(sp.sympify(end).evalf(20))) for end in ends)])
    near = [near[0] - 2, *near, near[-1] + 2]
    yield from ((one + other) / 2 for one, other in itertools.pairwise(near))


def _is_nonnegative(form: sp.Matrix, strict: bool) -> bool:
    """Whether a symmetric matrix is positive semidefinite (definite if strict): by its characteristic polynomial."""
    size = form.shape[0]
    coefficients = form.charpoly().all_coeffs()
    for degree, coefficient in enumerate(coefficients):
        value = sp.radsimp(sp.expand((-1) ** degree * coefficient))
        if not (value.is_positive if strict or degree == 0 else value.is_nonnegative):
            return False
    return size > 0
