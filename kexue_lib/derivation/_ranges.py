"""Sums and products to n and to n + 1 brought to one range, by the terms between."""

from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from kexue_lib.derivation._matrices import MatrixSum

_INDEX = sp.Dummy("index", integer=True, nonnegative=True)
_LONG = 60  # terms of a sum that a base case writes out
_FAR = 6  # terms that are drawn out of one sum


def common_ranges(expressions: Sequence[Any], floor: int) -> list[Any]:
    """The expressions with linear sums, each index shifted to where the entries carry it alone, and common ranges."""
    linear = [e.replace(_is_total, _linear) for e in expressions]
    sums = sorted({s for e in linear for s in e.atoms(sp.Sum, sp.Product)}, key=sp.default_sort_key)
    highs = [s.limits[-1][2] for s in sums]
    tops = [high.as_coeff_Add()[0] for high in highs if not high.is_number]
    lows = [s.limits[-1][1] for s in sums if isinstance(s, sp.Sum) and s.limits[-1][1].is_Integer]
    top, low = min(tops, default=sp.Integer(floor)), max(lows, default=None)
    return [e.replace(_is_total, lambda node: _cut(node, top, low)) for e in linear]


def without_empty(e: Any) -> Any:
    """Sums without a term as 0, products without one as 1.

    SymPy keeps them as they are, and gives an empty product a wrong sign in some processes.
    """
    if not any(total.has_empty_sequence for total in e.atoms(sp.Sum, sp.Product)):
        return e
    parts = [without_empty(part) for part in e.args]
    if isinstance(e, Relational):
        return e.func(*parts, evaluate=False)
    if _is_total(e) and e.has_empty_sequence:
        return sp.Integer(isinstance(e, sp.Product))
    return e.func(*parts)


def _is_total(e: Any) -> bool:
    return isinstance(e, (sp.Sum, sp.Product))


def peeled(e: Any, floor: int) -> Any:
    """Matrix sums cut at the lowest upper limit n + c, c ≤ floor."""
    tops = [s.args[1][2].as_coeff_Add()[0] for s in e.atoms(MatrixSum) if not s.args[1][2].is_number]
    top = min([*tops, sp.Integer(floor) - 1])
    return e.replace(lambda node: isinstance(node, MatrixSum), lambda node: _matrix_cut(node, top))


def _linear(total: Any) -> Any:
    """Σ (c f + g) = c Σ f + Σ g, with f's index shifted so that its first entry carries k itself; Π(-f) = ± Π f."""
    if len(total.limits) != 1:
        return total
    index, low, high = total.limits[0]
    body = total.function
    if low.is_nonnegative and (high - low + 1).is_nonnegative and not body.has(sp.Sum, sp.Product):
        # an index from 0 on, so that t^(k+1) = t t^k even at t = 0
        body, index = body.xreplace({index: _INDEX}), _INDEX
    if isinstance(total, sp.Product):
        sign = sp.S.NegativeOne if body.could_extract_minus_sign() else sp.S.One
        return sign ** (high - low + 1) * sp.Product(sign * body, (index, low, high))
    parts = []
    for term in sp.Add.make_args(sp.expand(sp.expand_power_exp(sp.expand(body)))):
        outside, inside = term.as_independent(index, as_Add=False)
        offset = _offset(inside, index)
        shifted = inside.subs(index, index - offset) if offset else inside
        parts.append(outside * sp.Sum(shifted, (index, low + offset, high + offset)))
    return sp.Add(*parts)


def _offset(body: Any, index: Any) -> Any:
    for applied in sorted(body.atoms(AppliedUndef, sp.Indexed), key=sp.default_sort_key):
        for argument in applied.args:
            offset = sp.expand(argument - index)
            if argument.has(index) and offset.is_Integer:
                return offset
    return 0


def _cut(total: Any, top: Any, low: Any) -> Any:
    """Terms drawn out at both ends: Σ_a^(N+1) = Σ_a^N + f(N+1) holds for every N; Π needs N ≥ a - 1."""
    first, last = total.limits[-1][1:]
    drawn = []
    if isinstance(total, sp.Sum) and low is not None and first.is_Integer and low - first <= _FAR:
        while first < low:
            drawn.append(_term(total, first))
            first += 1
    far = last.as_coeff_Add()[0] - top
    whole = isinstance(total, sp.Sum) or (last - far - first + 1).is_nonnegative
    if whole and not last.is_number and far.is_Integer and 0 < far <= _FAR:
        drawn += [_term(total, last - back) for back in range(int(far))]
        last -= far
    rest = without_empty(total.func(total.function, *total.limits[:-1], (total.limits[-1][0], first, last)))
    return sp.Add(rest, *drawn) if isinstance(total, sp.Sum) else sp.Mul(rest, *drawn)


def _term(total: Any, value: Any) -> Any:
    """The term of the outermost index at that value, itself a sum or product over the inner ones."""
    index = total.limits[-1][0]
    inner = [(name, *(bound.subs(index, value) for bound in bounds)) for name, *bounds in total.limits[:-1]]
    body = total.function if any(name == index for name, *_ in inner) else total.function.subs(index, value)
    return total.func(body, *inner) if inner else body


def written_out(total: Any) -> list[Any] | None:
    """The terms of a sum or product of known length; None where it is not known, or negative by Karr's convention."""
    first, last = total.limits[-1][1:]
    if not (first.is_Integer and last.is_Integer) or last - first >= _LONG or last < first - 1:
        return None
    return [_term(total, sp.Integer(value)) for value in range(int(first), int(last) + 1)]


def _matrix_cut(total: Any, top: Any) -> Any:
    index, first, last = total.args[1]
    far = last.as_coeff_Add()[0] - top
    if last.is_number or not (far.is_Integer and 0 < far <= _FAR):
        return total
    drawn = [total.args[0].subs(index, last - back) for back in range(int(far))]
    return sp.MatAdd(MatrixSum(total.args[0], (index, first, last - far)), *drawn)
