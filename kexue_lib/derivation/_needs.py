"""What a statement needs to have a meaning: the conditions under which every part of it is defined, smooth or real."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanFunction


class Need(NamedTuple):
    """`kind` of `subject` (see below) must hold wherever the conditions `given` do.

    nonzero, not_pole (no 0, -1, -2, …), real, nonnegative, positive, within (-1 ≤ subject ≤ 1),
    between (-1 < subject < 1), covered (a Boolean), bounded and convergent (a sum or integral), limit, invertible,
    and unknown (nothing here can tell).
    """

    kind: str
    subject: Any
    given: tuple[Any, ...] = ()


# Functions that are defined for every complex argument, and those among them with a derivative everywhere.
_ENTIRE = (sp.exp, sp.sin, sp.cos, sp.sinh, sp.cosh, sp.erf, sp.erfc, sp.erfi, sp.Si, sp.Shi, sp.sinc)
_ENTIRE += (sp.exp_polar, sp.fresnels, sp.fresnelc, sp.airyai, sp.airybi)
_TOTAL = (sp.Abs, sp.sign, sp.re, sp.im, sp.conjugate, sp.floor, sp.ceiling, sp.frac, sp.Heaviside, sp.KroneckerDelta)
_TOTAL += (sp.Max, sp.Min, sp.acot, sp.asinh, sp.asin, sp.acos, sp.acosh, sp.transpose, sp.adjoint)
_POLES = {sp.tan: sp.cos, sp.sec: sp.cos, sp.cot: sp.sin, sp.csc: sp.sin}
_POLES |= {sp.tanh: sp.cosh, sp.sech: sp.cosh, sp.coth: sp.sinh, sp.csch: sp.sinh}
_BESSEL = (sp.besselj, sp.bessely, sp.besseli, sp.besselk)
# Analytic in their last argument along the positive half axis, for any value of an earlier one that they accept.
_POSITIVE = (sp.Ci, sp.Chi, sp.Ei, sp.expint, sp.uppergamma, sp.lowergamma, sp.polygamma)
_POLYNOMIALS = (sp.legendre, sp.chebyshevt, sp.chebyshevu, sp.hermite, sp.laguerre)

_SMOOTH = (*_ENTIRE, *_POLES, sp.Add, sp.Mul, AppliedUndef, sp.Derivative, *_POLYNOMIALS, sp.Indexed)
_SMOOTH += (sp.MatrixExpr, sp.MatrixBase, sp.Trace, sp.Determinant, sp.Tuple)


def needs(expression: Any, given: tuple[Any, ...] = ()) -> Iterator[Need]:
    """What has to hold for an expression, or for each side of a statement, to have a value."""
    if isinstance(expression, (Relational, BooleanFunction)):
        for part in expression.args:
            yield from needs(part, given)
            if isinstance(expression, (sp.Lt, sp.Le, sp.Gt, sp.Ge)) and not part.is_infinite:
                yield from real_needs(part, given)
    elif isinstance(expression, sp.Piecewise):
        yield from _piecewise(expression, given)
    elif isinstance(expression, (sp.Sum, sp.Product)):
        yield from _total(expression, given)
    elif isinstance(expression, sp.Integral):
        yield from _integral(expression, given)
    elif isinstance(expression, sp.Limit):
        yield Need("limit", expression, given)
    elif isinstance(expression, sp.Derivative):
        yield from needs(expression.expr, given)
        for symbol in expression.variables:
            yield from kinks(expression.expr, symbol, given)
        if len(expression.variables) > 1:  # the first derivative must not have new kinks
            inner = expression.expr.diff(*expression.variables[:-1])
            yield from kinks(inner, expression.variables[-1], given)
    elif isinstance(expression, sp.Subs):
        yield from needs(expression.doit(), given)
        if expression.expr.has(sp.Derivative):
            yield from needs(expression.expr, given)
    elif isinstance(expression, sp.Inverse) or (isinstance(expression, sp.MatPow) and expression.exp.is_negative):
        yield from needs(expression.args[0], given)
        yield Need("invertible", expression.args[0], given)
    elif not isinstance(expression, (Boolean, str)) and hasattr(expression, "args"):
        arguments = expression if isinstance(expression, sp.MatrixBase) else expression.args
        for argument in arguments:
            yield from needs(argument, given)
        yield from _node(expression, given)


def _node(e: Any, given: tuple[Any, ...]) -> Iterator[Need]:
    """What the outermost operation needs, its arguments being defined."""
    if isinstance(e, sp.Pow):
        base, exponent = e.args
        if not (exponent.is_nonnegative or sp.re(exponent).is_positive):
            yield Need("nonzero", base, given)
    elif isinstance(e, sp.log):
        yield Need("nonzero", e.args[0], given)
    elif e.func in _POLES:
        if not (e.func in (sp.tanh, sp.sech) and e.args[0].is_extended_real):
            inside = e.args[0] if e.func in (sp.coth, sp.csch) and e.args[0].is_extended_real else None
            yield Need("nonzero", _POLES[e.func](e.args[0]) if inside is None else inside, given)
    elif isinstance(e, sp.atan):
        if not e.args[0].is_extended_real:
            yield Need("nonzero", 1 + e.args[0] ** 2, given)
    elif isinstance(e, (sp.atanh, sp.acoth)):
        yield Need("nonzero", 1 - e.args[0] ** 2, given)
    elif isinstance(e, (sp.asec, sp.acsc, sp.asech, sp.acsch)):
        yield Need("nonzero", e.args[0], given)
    elif isinstance(e, (sp.gamma, sp.loggamma, sp.digamma)):
        yield Need("not_pole", e.args[0], given)
    elif isinstance(e, sp.factorial):
        yield Need("not_pole", e.args[0] + 1, given)
    elif isinstance(e, sp.binomial):
        if not all(argument.is_integer for argument in e.args):
            yield Need("not_pole", e.args[0] + 1, given)
    elif isinstance(e, (sp.Mod, *_BESSEL)):
        yield Need("nonzero", e.args[1], given)
    elif isinstance(e, _POLYNOMIALS):
        if not e.args[0].is_nonnegative:
            yield Need("unknown", e, given)
    elif isinstance(e, _POSITIVE):
        yield Need("positive", e.args[-1], given)
        if isinstance(e, sp.lowergamma):
            yield Need("not_pole", e.args[0], given)
        if isinstance(e, sp.polygamma) and not (e.args[0].is_integer and e.args[0].is_nonnegative):
            yield Need("unknown", e, given)
    elif isinstance(e, sp.Function) and not isinstance(e, (*_ENTIRE, *_TOTAL, AppliedUndef)) and not e.is_finite:
        yield Need("unknown", e, given)


def _piecewise(e: Any, given: tuple[Any, ...]) -> Iterator[Need]:
    """Each piece under its condition alone; the conditions have to cover the domain."""
    earlier: list[Any] = []
    for piece, condition in e.args:
        if condition != sp.true:
            yield from needs(condition, (*given, *earlier))
        own = () if condition == sp.true else (condition,)
        yield from needs(piece, (*given, *earlier, *own))
        earlier.append(sp.Not(condition))
    if e.args[-1].cond != sp.true:
        yield Need("covered", sp.Or(*(condition for _, condition in e.args)), given)


def bound_within(symbol: Any, lower: Any, upper: Any, *, integer: bool, ends: bool = True) -> sp.Dummy:
    """A fresh name for a bound variable that knows the sign which its range gives it."""
    facts: dict[str, bool] = {"integer": True} if integer else {"real": True}
    if lower.is_positive or (lower.is_nonnegative and not ends):
        facts["positive"] = True
    elif lower.is_nonnegative:
        facts["nonnegative"] = True
    elif upper.is_negative or (upper.is_nonpositive and not ends):
        facts["negative"] = True
    return sp.Dummy(symbol.name, **facts)


def _total(e: Any, given: tuple[Any, ...]) -> Iterator[Need]:
    """Sums and products: each term in the range; by Karr's convention a reversed range has terms too."""
    body, conditions = e.function, list(given)
    for index, lower, upper in reversed(e.limits):  # the outermost limit first
        yield from needs(lower, tuple(conditions))
        yield from needs(upper, tuple(conditions))
        if upper is sp.oo or lower is -sp.oo:
            yield Need("convergent", e, given)
        name = sp.Dummy(index.name, integer=True)
        if upper is sp.oo or lower is -sp.oo or (upper - lower + 1).is_nonnegative:
            name = bound_within(index, lower, upper, integer=True)
            conditions += [sp.Ge(name, lower, evaluate=False)] if lower is not -sp.oo else []
            conditions += [sp.Le(name, upper, evaluate=False)] if upper is not sp.oo else []
        body = body.subs(index, name)
    yield from needs(body, tuple(c for c in conditions if c not in (sp.true, sp.false)))


def _integral(e: sp.Integral, given: tuple[Any, ...]) -> Iterator[Need]:
    """The integrand is defined inside the range, and the integral converges."""
    body, conditions = e.function, list(given)
    for limit in reversed(e.limits):
        if len(limit) != 3:
            yield Need("unknown", e, given)
            return
        variable, lower, upper = limit
        yield from needs(lower, tuple(conditions))
        yield from needs(upper, tuple(conditions))
        if (upper - lower).is_nonnegative:
            name = bound_within(variable, lower, upper, integer=False, ends=False)
            conditions += [sp.Gt(name, lower, evaluate=False)] if lower is not -sp.oo else []
            conditions += [sp.Lt(name, upper, evaluate=False)] if upper is not sp.oo else []
        else:
            name = sp.Dummy(variable.name, real=True)
        body = body.subs(variable, name)
    yield from needs(body, tuple(c for c in conditions if c not in (sp.true, sp.false)))
    yield Need("convergent", e, given)


def kinks(e: Any, symbol: Any, given: tuple[Any, ...] = ()) -> Iterator[Need]:
    """What has to hold, besides being defined, for the expression to have a derivative by the symbol everywhere."""
    if not getattr(e, "args", ()) or not e.has(symbol):
        return
    if isinstance(e, (sp.Sum, sp.Product, sp.Integral)):
        yield from _kinks_inside(e, symbol, given)
        return
    if isinstance(e, sp.Piecewise):
        yield Need("unknown", e, given)
        return
    for argument in e.args:
        yield from kinks(argument, symbol, given)
    inside = e.args[0]
    if isinstance(e, sp.Pow):
        base, exponent = e.args
        if base.has(symbol) and not (exponent.is_integer and exponent.is_nonnegative):
            yield Need("nonzero", base, given)
        if exponent.has(symbol):
            yield Need("nonzero", base, given)
        if base.has(symbol) and not exponent.is_integer:
            yield from _off_the_cut(base, symbol, given)
    elif isinstance(e, sp.log):
        yield from _off_the_cut(inside, symbol, given)
    elif isinstance(e, (sp.Abs, sp.Max, sp.Min)):
        if isinstance(e, sp.Abs) and len(e.args) == 1:
            yield Need("nonzero", inside, given)
            yield Need("real", inside, given)
        else:
            for i, one in enumerate(e.args):
                for other in e.args[i + 1 :]:
                    yield Need("nonzero", one - other, given)
    elif isinstance(e, (sp.asin, sp.acos, sp.atanh)):
        yield Need("between", inside, given)
    elif isinstance(e, (sp.atan, sp.asinh)):
        yield Need("real", inside, given)
    elif isinstance(e, sp.acot):
        yield Need("real", inside, given)
        yield Need("nonzero", inside, given)
    elif isinstance(e, (sp.gamma, sp.factorial, sp.loggamma, sp.digamma)):
        yield Need("real", inside, given)
    elif isinstance(e, (*_POSITIVE, *_BESSEL)) and not any(order.has(symbol) for order in e.args[:-1]):
        yield Need("positive", e.args[-1], given)
    elif not isinstance(e, _SMOOTH) and not (symbol.is_extended_real and isinstance(e, (sp.re, sp.im, sp.conjugate))):
        yield Need("unknown", e, given)


def _off_the_cut(inside: Any, symbol: Any, given: tuple[Any, ...]) -> Iterator[Need]:
    """Principal values jump across the negative axis: a real argument must keep one sign, others must be positive."""
    if symbol.is_extended_real and inside.is_extended_real:
        yield Need("nonzero", inside, given)
    else:
        yield Need("positive", inside, given)


def _kinks_inside(e: Any, symbol: Any, given: tuple[Any, ...]) -> Iterator[Need]:
    """Differentiating under the sum or integral sign: finite ranges of smooth terms with fixed or smooth ends."""
    body = e.function
    conditions = list(given)
    for limit in reversed(e.limits):
        if len(limit) != 3:
            yield Need("unknown", e, given)
            return
        index, lower, upper = limit
        discrete = not isinstance(e, sp.Integral)
        infinite = upper.is_infinite or lower.is_infinite
        if infinite or (discrete and (lower.has(symbol) or upper.has(symbol))):
            yield Need("unknown", e, given)
            return
        yield from kinks(lower, symbol, given)
        yield from kinks(upper, symbol, given)
        name = bound_within(index, lower, upper, integer=discrete)
        if (upper - lower).is_nonnegative:
            conditions += [sp.Ge(name, lower, evaluate=False), sp.Le(name, upper, evaluate=False)]
        else:
            name = sp.Dummy(index.name, **({"integer": True} if discrete else {"real": True}))
        body = body.subs(index, name)
    conditions = [c for c in conditions if c not in (sp.true, sp.false)]
    yield from kinks(body, symbol, tuple(conditions))
    if isinstance(e, sp.Integral):
        yield from needs(body, tuple(conditions))


def real_needs(e: Any, given: tuple[Any, ...] = ()) -> Iterator[Need]:
    """What has to hold for an expression to be real, as an order relation asks of both its sides."""
    if e.is_extended_real:
        return
    if isinstance(e, (sp.Add, sp.Mul, sp.Max, sp.Min)) or e.func in (*_POLES, *_ENTIRE, sp.floor, sp.asinh, sp.atan):
        for argument in e.args:
            yield from real_needs(argument, given)
    elif isinstance(e, (sp.log, sp.loggamma)):
        yield Need("positive", e.args[0], given)
    elif isinstance(e, sp.Pow):
        base, exponent = e.args
        yield from real_needs(base, given)
        yield from real_needs(exponent, given)
        if not exponent.is_integer:
            yield Need("nonnegative", base, given)
    elif isinstance(e, (sp.asin, sp.acos)):
        yield Need("within", e.args[0], given)
    elif isinstance(e, sp.atanh):
        yield Need("between", e.args[0], given)
    elif isinstance(e, (sp.Sum, sp.Product)):
        body = e.function
        for index, lower, upper in reversed(e.limits):
            body = body.subs(index, bound_within(index, lower, upper, integer=True))
        yield from real_needs(body, given)
    elif isinstance(e, sp.Integral) and all(len(limit) == 3 for limit in e.limits):
        body, inside = e.function, list(given)
        for variable, lower, upper in reversed(e.limits):
            yield from real_needs(lower, given)
            yield from real_needs(upper, given)
            name = bound_within(variable, lower, upper, integer=False, ends=False)
            inside += [c for c in (sp.Gt(name, lower), sp.Lt(name, upper)) if c not in (sp.true, sp.false)]
            body = body.subs(variable, name)
        yield from real_needs(body, tuple(inside))
    elif isinstance(e, sp.Piecewise):
        earlier: list[Any] = []
        for piece, condition in e.args:
            own = () if condition == sp.true else (condition,)
            yield from real_needs(piece, (*given, *earlier, *own))
            earlier.append(sp.Not(condition))
    elif isinstance(e, (sp.Limit, sp.Derivative)):
        yield from real_needs(e.args[0], given)
    else:
        yield Need("real", e, given)
