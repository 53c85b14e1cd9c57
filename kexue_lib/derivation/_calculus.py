"""The values of derivatives, integrals, limits and infinite sums, and whether they exist."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation._cannot import attempted
from kexue_lib.derivation._given import parameters, shifted
from kexue_lib.derivation._needs import Need, bound_within, needs
from kexue_lib.derivation._sign import prove_need, prove_nonzero, prove_sign
from kexue_lib.derivation._zero import DELICATE

_JUMPS = (*DELICATE, sp.sign, sp.Heaviside, sp.Piecewise, sp.Abs, sp.Max, sp.Min)


def evaluated(expression: Any, given: Sequence[Any]) -> Any:
    """The expression with derivatives, integrals, limits and infinite sums replaced by their values, innermost first.

    What has no value that is free of further conditions stays. Sound for derivatives, whose kinks are among the
    statement's needs. The value of an integral, a limit or an infinite sum is SymPy's; a statement that uses one
    must also agree with quadrature, with the values that tend to the limit, or with partial sums and a bound for
    the rest, none of which ask SymPy.
    """
    if isinstance(expression, sp.MatrixBase):
        return expression.applyfunc(lambda entry: evaluated(entry, given))
    if not getattr(expression, "args", ()) or not isinstance(expression, sp.Basic):
        return expression
    if isinstance(expression, (sp.Derivative, sp.Subs)):
        return _doit(expression)
    if not expression.has(sp.Integral, sp.Limit, sp.Sum, sp.Product, sp.Derivative, sp.Subs):
        return expression
    if isinstance(expression, sp.Integral):
        return _integral(expression, tuple(given))
    if isinstance(expression, sp.Limit):
        body = evaluated(expression.args[0], given)
        return _limit(sp.Limit(body, *expression.args[1:]), tuple(given))
    if isinstance(expression, (sp.Sum, sp.Product)):
        body = evaluated(expression.function, given) if expression.function.has(sp.Derivative) else expression.function
        total = expression.func(body, *expression.limits)
        infinite = any(end.is_infinite for limit in expression.limits for end in limit[1:])
        return _refined(_doit(total), given) if infinite else total
    return expression.func(*(evaluated(argument, given) for argument in expression.args))


def _doit(lazy: Any) -> Any:
    return attempted(lazy.doit, lazy)


@functools.lru_cache(maxsize=256)
def _limit(limit: sp.Limit, given: tuple[Any, ...]) -> Any:
    """SymPy's value, where it holds for all parameters.

    SymPy answers for general parameters: lim wx/(1 + wx) = 1 though it is 0 at w = 0. So each coefficient, rate and
    exponent must be shown to be nonzero, or the limit to have the same value where it is zero.
    """
    if limit.has(*DELICATE):
        return limit
    value = _general(limit)
    free = parameters(sp.expand_power_exp(limit.args[0]), limit.args[1])
    if value is None or not all(prove_nonzero(e, given) or _same_at_zero(limit, value, e, given) for e in free):
        return limit
    return value


def _general(limit: sp.Limit) -> Any:
    for body in (limit.args[0], sp.factor(limit.args[0])):
        value = _doit(sp.Limit(body, *limit.args[1:]))
        if not value.has(sp.Limit, sp.AccumBounds, sp.nan, sp.zoo):
            return value
    return None


def _same_at_zero(limit: sp.Limit, value: Any, parameter: sp.Expr, given: tuple[Any, ...]) -> bool:
    """Whether the limit has its general value also where the parameter is zero, each factor solved for a symbol."""
    for factor in sp.Mul.make_args(sp.factor(parameter)):
        base = factor.base if isinstance(factor, sp.Pow) and factor.exp.is_positive else factor
        if prove_nonzero(base, given):
            continue
        solved = next((s for s in sorted(base.free_symbols, key=str) if sp.diff(base, s).is_nonzero), None)
        if solved is None or sp.diff(base, solved, 2) != 0:
            return False
        zero = {solved: sp.expand(solved - base / sp.diff(base, solved))}
        there = sp.Limit(limit.args[0].subs(zero), *limit.args[1:])
        if there.has(sp.nan, sp.zoo) or limit.args[1] in zero[solved].free_symbols:
            return False
        found = _limit(there, tuple(c.subs(zero) for c in given))
        if found.has(sp.Limit) or sp.simplify(found - value.subs(zero)) != 0:
            return False
    return True


@functools.lru_cache(maxsize=256)
def _integral(integral: sp.Integral, given: tuple[Any, ...]) -> Any:
    """The value of a definite integral: a Gaussian by completing the square, else SymPy's if it has no conditions."""
    body = integral.function
    inner = evaluated(body, given) if body.has(sp.Integral, sp.Derivative, sp.Limit) else body
    if inner.has(*DELICATE):
        return integral
    integral = sp.Integral(inner, *integral.limits)
    value = _gaussian(integral)
    if not value.has(sp.Integral):
        return value
    split = _split(integral, given)
    if split is not None:
        return sum(_integral(part, given) for part in split)
    forms = [inner, sp.expand(inner.rewrite(sp.exp)), sp.expand(inner)]
    for form in dict.fromkeys(forms):
        value = _refined(_doit(sp.Integral(form, *integral.limits)), given)
        if not value.has(sp.Integral, sp.Piecewise, sp.nan, sp.zoo):
            return value
    return integral


def _split(integral: sp.Integral, given: Sequence[Any]) -> list[sp.Integral] | None:
    """A finite range cut where absolute values, signs, maxima, minima or pieces change, each part without them."""
    if len(integral.limits) != 1 or len(integral.limits[0]) != 3 or not integral.has(*_JUMPS):
        return None
    variable, lower, upper = integral.limits[0]
    edges: set[Any] = set()
    for atom in integral.function.atoms(sp.Abs, sp.sign, sp.Heaviside, sp.Max, sp.Min, sp.core.relational.Relational):
        differences = list(atom.args[:1]) if isinstance(atom, (sp.Abs, sp.sign, sp.Heaviside)) else _differences(atom)
        for difference in (d for d in differences if d.has(variable)):
            if not difference.is_polynomial(variable) or sp.degree(difference, variable) != 1:
                return None
            edges |= set(sp.solve(difference, variable))
    if not edges or not all(edge.is_number for edge in (*edges, lower, upper)) or not (upper - lower).is_positive:
        return None
    cuts = [lower, *sorted(edge for edge in edges if lower < edge < upper), upper]
    parts = []
    for left, right in itertools.pairwise(cuts):
        inside = left + 1 if right is sp.oo else right - 1 if left is -sp.oo else (left + right) / 2
        parts.append(sp.Integral(_on_piece(integral.function, variable, inside), (variable, left, right)))
    return None if any(part.has(*_JUMPS) for part in parts) else parts


def _differences(atom: Any) -> list[Any]:
    return [one - other for i, one in enumerate(atom.args) for other in atom.args[i + 1 :]]


def _on_piece(body: Any, variable: Any, inside: Any) -> Any:
    """The branch of each piecewise function that holds around a point; between the edges there is only one."""

    def chosen(atom: Any) -> Any:
        at = {variable: inside}
        if isinstance(atom, sp.Piecewise):
            return next(piece for piece, condition in atom.args if condition.subs(at) == sp.true)
        if isinstance(atom, (sp.Max, sp.Min)):
            return (max if isinstance(atom, sp.Max) else min)(atom.args, key=lambda a: a.subs(at))
        sign = sp.sign(atom.args[0].subs(at))
        return {sp.Abs: sign * atom.args[0], sp.sign: sign}.get(atom.func, (1 + sign) / 2)

    wanted = lambda e: isinstance(e, (sp.Abs, sp.sign, sp.Heaviside, sp.Max, sp.Min, sp.Piecewise)) and e.has(variable)
    return body.replace(wanted, chosen)


def _gaussian(integral: sp.Integral) -> Any:
    """Integrals of a polynomial times exp(-a x^2 + b x + c) over the real line, with x shifted by b / (2 a)."""
    x, *ends = integral.limits[0]
    if len(integral.limits) > 1 or ends != [-sp.oo, sp.oo]:
        return integral
    parts = sp.Mul.make_args(sp.powsimp(sp.factor_terms(integral.function)))
    exponent = sp.expand(sum(part.args[0] for part in parts if isinstance(part, sp.exp)))
    factor = sp.Mul(*(part for part in parts if not isinstance(part, sp.exp)))
    if not factor.is_polynomial(x) or not exponent.is_polynomial(x) or sp.degree(exponent, x) != 2:
        return integral
    curvature, slope, constant = (sp.simplify(part) for part in sp.Poly(exponent, x).all_coeffs())
    if not (-curvature).is_positive:
        return integral
    shift = -slope / (2 * curvature)
    moments = sp.Poly(sp.expand(factor.subs(x, x + shift)), x).terms()
    even = ((power // 2, value) for (power,), value in moments if power % 2 == 0)
    total = sum(value * sp.gamma(k + sp.S.Half) / (-curvature) ** (k + sp.S.Half) for k, value in even)
    return total * sp.exp(constant - slope**2 / (4 * curvature))


def _refined(value: Any, given: Sequence[Any]) -> Any:
    """Pieces whose conditions are decided by assumptions and conditions; undecided ones stay."""

    def branch(piecewise: Any) -> Any:
        for piece, condition in piecewise.args:
            if _decided(condition, given):
                return piece
            if not _decided(sp.Not(condition), given):
                return piecewise
        return piecewise

    return value.replace(lambda e: isinstance(e, sp.Piecewise), branch) if hasattr(value, "replace") else value


def _decided(condition: Any, given: Sequence[Any]) -> bool:
    if condition == sp.true:
        return True
    if isinstance(condition, sp.And):
        return all(_decided(part, given) for part in condition.args)
    if isinstance(condition, sp.Or):
        return any(_decided(part, given) for part in condition.args)
    if isinstance(condition, sp.Ne):
        return prove_nonzero(condition.lhs - condition.rhs, given, 1)
    if isinstance(condition, sp.Eq):
        return sp.simplify(shifted(condition.lhs - condition.rhs, given)[0]) == 0
    if isinstance(condition, (sp.Gt, sp.Lt, sp.Ge, sp.Le)):
        return prove_sign(condition.gts - condition.lts, isinstance(condition, (sp.Gt, sp.Lt)), given, 1)
    return False


# --- existence --------------------------------------------------------------------------------------------------------


def exists(need: Need) -> bool:
    """Whether a sum, integral or limit is shown to have a finite value, or to be an infinite one that SymPy knows."""
    lazy, given = need.subject, need.given
    if isinstance(lazy, sp.Limit):
        return not evaluated(lazy, given).has(sp.Limit)
    if isinstance(lazy, sp.Integral):
        return _continuous(lazy, given) or not evaluated(lazy, given).has(sp.Integral, sp.oo, -sp.oo)
    return not evaluated(lazy, given).has(sp.Sum, sp.Product)


def _continuous(integral: sp.Integral, given: Sequence[Any]) -> bool:
    """Finite ranges, ends included, on which every part of the integrand is defined: it is bounded there."""
    body, conditions = integral.function, list(given)
    if integral.has(sp.Sum, sp.Limit, sp.gamma):
        return False
    for variable, lower, upper in reversed(integral.limits):
        if lower.is_infinite or upper.is_infinite:
            return False
        name = sp.Dummy(variable.name, real=True)
        if (upper - lower).is_nonnegative:
            name = bound_within(variable, lower, upper, integer=False)
            conditions += [sp.Ge(name, lower, evaluate=False), sp.Le(name, upper, evaluate=False)]
        body = body.subs(variable, name)
    conditions = [c for c in conditions if c not in (sp.true, sp.false)]
    return all(met(need) for need in needs(body, tuple(conditions)))


def met(need: Need) -> bool:
    """Whether a need of a statement (see `Need`) is shown to be met."""
    if need.kind in ("convergent", "limit"):
        return exists(need)
    if need.kind == "covered":
        return sp.simplify(need.subject) == sp.true or _decided(need.subject, need.given)
    if need.subject.has(sp.Integral, sp.Limit, sp.Derivative):
        need = need._replace(subject=evaluated(need.subject, need.given))
    return prove_need(need)
