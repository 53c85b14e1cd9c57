"""Whether a statement is true at one point, by balls that are made finer until they tell.

False needs two balls apart, or a side without a value; equal needs balls that
overlap with a relative radius below 1e-45, and fine enough to see every part of both sides; an order whose sides are
equal needs the difference to be exactly zero. What stays open is None, with the reason.
"""

from typing import Any, NamedTuple

import mpmath
import sympy as sp

from kexue_lib.derivation._balls import COMPLEX, Ball, holds_zero, imaginary_part, lower, raw, real_sign, sub, upper
from kexue_lib.derivation._compile import Environment, compiled, condition, integer
from kexue_lib.derivation._conditions import ORDERS
from kexue_lib.derivation._enclosure import bits_of, enclose
from kexue_lib.derivation._enclosure_matrices import compiled_matrix
from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._radii import NoValue, Undefined

_LEVELS = (60, 300, 1500, 6000)
_MOST_DIGITS = 2000  # to see every part of both sides; a point that asks for more decides nothing
DIGITS = 45  # to which two sides have to agree, where nothing in them limits the precision
_SAME = mpmath.mpf(10) ** -DIGITS
_COARSE = mpmath.mpf("1e-5")  # the least precision at which an integral or a limit counts as equal to something


class Truth(NamedTuple):
    """True, False or None (undecided); the sides of the part that decided; what is undefined; and a remark."""

    value: bool | None
    sides: tuple[Any, Any] | None = None
    undefined: str | None = None
    reason: str = ""


def truth(statement: Any, point: dict[Any, Any] | None = None) -> Truth:
    """Whether a statement holds at a point.

    A point where a side is undefined makes its relation False, with `undefined` saying why; a part that is not reached
    (an implication with a false premise) does not matter.
    """
    statement = sp.sympify(statement)
    if statement in (sp.true, sp.false):
        return Truth(bool(statement))
    for kind, combine in _COMBINATIONS.items():
        if isinstance(statement, kind):
            return combine(statement.args, point)
    if isinstance(statement, (sp.Eq, sp.Ne)):
        return _equation(statement, point)
    if statement.func in ORDERS:
        return _finer(statement, point, _ordered)
    return _finer(statement, point, _conditional)


# --- combinations ---


def _all_of(parts, point):
    return _first_decisive(parts, point, False)


def _one_of(parts, point):
    return _first_decisive(parts, point, True)


def _first_decisive(parts, point, decisive):
    kept = None
    for part in parts:
        result = truth(part, point)
        if result.value is decisive and not (decisive is False and result.undefined):
            return result
        if kept is None or _weight(result, decisive) > _weight(kept, decisive):
            kept = result
    return kept if kept is not None else Truth(not decisive)


def _weight(result, decisive):
    """Which of several parts speaks for the whole: an undefined one makes And false; an open one leaves Or open."""
    if result.value is None:
        return 1 if decisive is False else 3
    if result.undefined:
        return 2
    return 0


def _not(parts, point):
    result = truth(parts[0], point)
    return result if result.value is None or result.undefined else result._replace(value=not result.value)


def _implies(parts, point):
    premise = truth(parts[0], point)
    if premise.value is False:
        return premise if premise.undefined else Truth(True)
    conclusion = truth(parts[1], point)
    return premise if premise.value is None and conclusion.value is not True else conclusion


def _equivalent(parts, point):
    return _counted(parts, point, lambda values: len(set(values)) == 1)


def _exclusive(parts, point):
    return _counted(parts, point, lambda values: sum(values) % 2 == 1)


def _counted(parts, point, holds):
    results = [truth(part, point) for part in parts]
    for result in results:
        if result.undefined or result.value is None:
            return result
    failed = next((result for result in results if result.value is False), results[0])
    return failed._replace(value=holds([result.value for result in results]))


def _if_then_else(parts, point):
    test = truth(parts[0], point)
    return test if test.value is None or test.undefined else truth(parts[1 if test.value else 2], point)


def _for_every(parts, point):
    condition, (index, low, high) = parts
    ends = [integer(enclose(end, point)) for end in (low, high)]
    kept = Truth(True)
    for k in range(ends[0], ends[1] + 1):
        result = truth(condition, (point or {}) | {index: sp.Integer(k)})
        if result.value is False:
            return result
        kept = result if result.value is None else kept
    return kept


_COMBINATIONS = {
    ForEvery: _for_every,
    sp.And: _all_of, sp.Or: _one_of, sp.Not: _not, sp.Implies: _implies, sp.Equivalent: _equivalent,
    sp.Xor: _exclusive, sp.ITE: _if_then_else,
}  # fmt: skip


# --- one relation, at more and more digits ---


class _Open(Exception):
    """More digits may decide; `final` is the answer if there are none to be had."""

    def __init__(self, final):
        super().__init__(final.reason)
        self.final = final


def _finer(statement, point, decide):
    """The answer of `decide` at the first precision that has one."""
    digits, answer, need = 0, None, 0
    levels = _LEVELS[:2] if _is_costly(statement) else _LEVELS
    for level in levels:
        if level <= digits:
            continue
        if level == _LEVELS[-1] and need <= digits and answer is not None:
            break  # every part of both sides was seen: what cancels to 1500 digits is taken for equal
        digits = max(level, min(need, _MOST_DIGITS)) if need > level else level
        env = Environment(point, bits_of(digits), exact_tests=digits >= 300)
        try:
            return decide(statement, env)
        except Undefined as problem:
            return Truth(False, _sides(statement), problem.reason, f"undefined: {problem.reason}")
        except _Open as problem:
            answer = problem.final
        except (OverflowError, MemoryError):  # what mpmath says of numbers whose exponents are too far apart
            return Truth(None, _sides(statement), None, "could not decide: a number too large to compute with")
        except NoValue as problem:
            answer = Truth(None, _sides(statement), None, f"could not decide: {problem}")
            if (level >= 300 or len(levels) == 2) and not _may_help(problem):
                break
        need = int(env.need * 0.302) + 60
        if need > _MOST_DIGITS:
            break
    return answer


def _may_help(problem):
    return "stays" not in str(problem) and any(
        word in str(problem) for word in ("told from", "all digits", "perhaps", "may be")
    )


def _is_costly(statement):
    return statement.has(sp.Integral, sp.Limit) or any(
        bound.has(sp.oo, -sp.oo) for series in statement.atoms(sp.Sum, sp.Product) for bound in series.limits
    )


def _sides(statement):
    return tuple(statement.args) if isinstance(statement, sp.core.relational.Relational) else None


def _conditional(statement, env):
    return Truth(condition(statement)(env))


def _equation(statement, point):
    lhs, rhs = statement.args
    if any(isinstance(side, sp.logic.boolalg.Boolean) and not isinstance(side, sp.Symbol) for side in (lhs, rhs)):
        result: Truth = _equivalent((lhs, rhs), point)
    else:
        decide = _equal_matrices if is_matrix(lhs) or is_matrix(rhs) else _equal
        result = _finer(sp.Eq(lhs, rhs, evaluate=False), point, decide)
    if isinstance(statement, sp.Ne) and result.value is not None and not result.undefined:
        return result._replace(value=not result.value, sides=(lhs, rhs))
    return result


def _equal(statement, env):
    lhs, rhs = statement.args
    return _compare_equal(env, compiled(lhs)(env), compiled(rhs)(env), lhs, rhs, _is_costly(statement))


def _equal_matrices(statement, env):
    first, second = (compiled_matrix(side)(env) for side in statement.args)
    if len(first) != len(second) or any(len(a) != len(b) for a, b in zip(first, second)):
        return Truth(False, tuple(statement.args), None, "different shapes")
    worst, costly = Truth(True, tuple(statement.args)), _is_costly(statement)
    for i, rows in enumerate(zip(first, second)):
        for j, (x, y) in enumerate(zip(*rows)):
            entry = _compare_equal(env, x, y, None, None, costly)
            if entry.value is False:
                return entry._replace(sides=tuple(statement.args), reason=f"entry ({i}, {j})")
            worst = entry._replace(sides=tuple(statement.args)) if entry.reason else worst
    return worst


def _compare_equal(env, x, y, lhs, rhs, costly):
    sides = (lhs, rhs)
    if x.inf or y.inf:
        return Truth(x.inf == y.inf, sides)
    difference = sub(x, y, env.bits)
    if difference.a is not None:
        return Truth(not (difference.a or difference.b), sides)
    if not holds_zero(difference):
        return Truth(False, sides)
    radius, size = _float(upper(difference)), max(_float(lower(x)), _float(lower(y)))
    if env.need + 20 > env.bits and not costly:
        raise _Open(Truth(None, sides, None, "equal to all digits computed, but parts are smaller still"))
    if radius <= _SAME * size or (not size and radius <= mpmath.ldexp(1, -env.bits // 3) and env.bits > bits_of(250)):
        return Truth(True, sides)
    if lhs is not None and env.is_zero(sp.Add(lhs, -rhs)):
        return Truth(True, sides)
    scale = size or mpmath.mpf(1)
    digits = max(0, min(env.bits, int(-mpmath.log10(radius / scale)))) if radius else env.bits
    coarse = Truth(True if radius <= _COARSE * scale else None, sides, None, f"to {digits} digits")
    if costly:
        return coarse
    if env.bits > bits_of(250) and radius > mpmath.mpf("1e-40") * scale:
        return coarse
    raise _Open(Truth(None, sides, None, f"equal to {digits} digits"))


def _ordered(statement, env):
    lhs, rhs = statement.args
    x, y = compiled(lhs)(env), compiled(rhs)(env)
    wanted, sides = ORDERS[statement.func], (lhs, rhs)
    for ball in (x, y):
        if not _is_real(ball):
            return Truth(False, sides, "not real", "a side is not real")
    if x.inf or y.inf:
        return Truth((x.inf > y.inf) - (x.inf < y.inf) in wanted, sides)
    difference = sub(x, y, env.bits)
    order = real_sign(difference)
    if order is None and env.is_zero(sp.Add(lhs, -rhs)):
        order = 0
    if order is not None:
        return Truth(order in wanted, sides)
    radius, size = _float(upper(difference)), max(_float(lower(x)), _float(lower(y))) or mpmath.mpf(1)
    digits = max(0, min(env.bits, int(-mpmath.log10(radius / size)))) if radius else env.bits
    undecided = Truth(None, sides, None, f"equal to {digits} digits")
    if _is_costly(statement):
        return undecided
    raise _Open(undecided)


def _is_real(ball):
    if not ball.flags & COMPLEX or ball.inf:
        return True
    part = imaginary_part(ball)
    if not holds_zero(part):
        return False
    if part.a is None and _float(upper(part)) > _SAME * max(_float(lower(ball)), mpmath.mpf("1e-30")):
        raise NoValue("perhaps real")
    return True


def _float(value):
    return mpmath.mp.make_mpf(value)


# --- for readers ---


def value_text(expression: Any, point: dict[Any, Any] | None = None, other: Any = None) -> str:
    """The value of an expression in digits, as many as it takes to tell it from `other`."""
    try:
        ball, digits = _told_apart(expression, other, point)
    except Undefined as problem:
        return f"undefined ({problem.reason})"
    except NoValue as problem:
        return f"no value ({problem})"
    if ball.inf:
        return "oo" if ball.inf > 0 else "-oo"
    if ball.a is not None and not ball.b:
        short = str(ball.a)
        if len(short) <= 24:
            return short
    re, im, _ = raw(ball, bits_of(digits + 10))
    parts = [_digits(_float(part), digits) for part in (re, im)]
    if not ball.flags & COMPLEX or not im[1]:
        return parts[0]
    return f"{parts[0]} {'-' if im[0] else '+'} {parts[1].lstrip('-')}i"


def _told_apart(expression, other, point):
    if other is None:
        return enclose(expression, point), 12
    for digits in _LEVELS:
        ball = enclose(expression, point, digits)
        try:
            against = enclose(other, point, digits)
        except (Undefined, NoValue):
            return ball, 12
        if ball.inf or against.inf:
            return ball, 12
        gap, size = _float(lower(sub(ball, against, bits_of(digits)))), _float(upper(ball))
        if gap:
            return ball, max(6, int(mpmath.log10(size / gap)) + 4) if size else 6
    return ball, 20


def _digits(number, digits):
    with mpmath.workdps(digits + 15):
        text = mpmath.nstr(number, digits, strip_zeros=True)
    return text if len(text) <= 40 else f"{text[:10]}…{text[-12:]} ({digits} digits)"


__all__ = ["DIGITS", "Ball", "NoValue", "Truth", "Undefined", "truth", "value_text"]
