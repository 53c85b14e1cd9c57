"""Conditions and the table of functions: which ball function computes which function of SymPy's.

A condition is decided by balls that do not overlap, by exact rationals, or, where
hundreds of digits cannot separate the two sides, symbolically. An undefined part that is not reached does not matter.
"""

import sympy as sp
from sympy.assumptions import AppliedPredicate

from kexue_lib.derivation import _rounding as rounding
from kexue_lib.derivation._balls import (
    COMPLEX,
    ZERO,
    holds_zero,
    imaginary_part,
    real_sign,
    sub,
)
from kexue_lib.derivation._compile import compiled, condition, condition_rule
from kexue_lib.derivation._radii import NoValue, Straddle, Undefined


def equal(env, x, y, lhs, rhs):
    """Whether two balls are the same number; NoValue where that stays open."""
    if x.inf or y.inf:
        return x.inf == y.inf
    difference = sub(x, y, env.bits)
    if difference.a is not None:
        return not (difference.a or difference.b)
    if not holds_zero(difference):
        return False
    if env.is_zero(sp.Add(lhs, -rhs)):
        return True
    raise NoValue("equal to all digits computed")


def check_real(env, ball, expression):
    """Refuse a number that is not real."""
    if not ball.flags & COMPLEX or ball.inf:
        return
    part = imaginary_part(ball)
    if not holds_zero(part):
        raise Undefined("not real")
    if part.a is None and not env.is_zero(sp.im(expression)):
        raise NoValue("real to all digits computed")


def order(env, x, y, lhs, rhs):
    """-1, 0 or 1 as x is below, at or above y."""
    check_real(env, x, lhs)
    check_real(env, y, rhs)
    if x.inf or y.inf:
        return (x.inf > y.inf) - (x.inf < y.inf)
    known = real_sign(sub(x, y, env.bits))
    if known is not None:
        return known
    if env.is_zero(sp.Add(lhs, -rhs)):
        return 0
    raise NoValue("equal to all digits computed")


ORDERS = {
    sp.StrictLessThan: (-1,),
    sp.LessThan: (-1, 0),
    sp.StrictGreaterThan: (1,),
    sp.GreaterThan: (0, 1),
}


@condition_rule(sp.Eq, sp.Ne)
def _(statement):
    lhs, rhs = (compiled(side) for side in statement.args)
    wanted = isinstance(statement, sp.Eq)
    return lambda env: equal(env, lhs(env), rhs(env), *statement.args) is wanted


@condition_rule(*ORDERS)
def _(statement):
    lhs, rhs = (compiled(side) for side in statement.args)
    wanted = ORDERS[statement.func]
    return lambda env: order(env, lhs(env), rhs(env), *statement.args) in wanted


@condition_rule(sp.logic.boolalg.BooleanTrue, sp.logic.boolalg.BooleanFalse)
def _(statement):
    return lambda env: bool(statement)


def _until(statement, decisive):
    parts = [condition(part) for part in statement.args]

    def value(env):
        open_part = None
        for part in parts:
            try:
                if part(env) is decisive:
                    return decisive
            except (NoValue, Undefined) as error:
                open_part = open_part or error
        if open_part is not None:
            raise open_part
        return not decisive

    return value


@condition_rule(sp.And)
def _(statement):
    return _until(statement, False)


@condition_rule(sp.Or)
def _(statement):
    return _until(statement, True)


@condition_rule(sp.Not)
def _(statement):
    part = condition(statement.args[0])
    return lambda env: not part(env)


@condition_rule(sp.Implies)
def _(statement):
    premise, conclusion = (condition(part) for part in statement.args)
    return lambda env: not premise(env) or conclusion(env)


@condition_rule(sp.Equivalent)
def _(statement):
    parts = [condition(part) for part in statement.args]
    return lambda env: len({part(env) for part in parts}) == 1


@condition_rule(sp.Xor)
def _(statement):
    parts = [condition(part) for part in statement.args]
    return lambda env: sum(part(env) for part in parts) % 2 == 1


@condition_rule(sp.ITE)
def _(statement):
    test, first, second = (condition(part) for part in statement.args)
    return lambda env: first(env) if test(env) else second(env)


def is_integer(ball):
    """Whether a ball is an integer; NoValue where that stays open."""
    if ball.a is not None:
        return not ball.b and type(ball.a) is int
    try:
        rounding.floor(ball, 200)
    except Straddle as straddle:
        raise NoValue("perhaps an integer") from straddle
    return False


@condition_rule(sp.Contains)
def _(statement):
    element, domain = statement.args
    return _membership(element, domain)


def _membership(element, domain):
    ball = compiled(element)
    if isinstance(domain, sp.Interval):
        left = (sp.Gt if domain.left_open else sp.Ge)(element, domain.start, evaluate=False)
        right = (sp.Lt if domain.right_open else sp.Le)(element, domain.end, evaluate=False)
        parts = condition(left), condition(right)
        return lambda env: _is_real(env, ball(env), element) and all(part(env) for part in parts)
    if domain is sp.S.Reals:
        return lambda env: _is_real(env, ball(env), element)
    if domain is sp.S.Complexes:
        return lambda env: bool(ball(env)) or True
    least = {sp.S.Integers: None, sp.S.Naturals: 1, sp.S.Naturals0: 0}
    if domain in least:
        low = least[domain]

        def whole(env):
            value = ball(env)
            return is_integer(value) and (low is None or value.a >= low)

        return whole
    if isinstance(domain, sp.FiniteSet):
        return condition(sp.Or(*(sp.Eq(element, member, evaluate=False) for member in domain.args)))
    if isinstance(domain, (sp.Union, sp.Intersection)):
        parts = [_membership(element, part) for part in domain.args]
        gather = any if isinstance(domain, sp.Union) else all
        return lambda env: gather(part(env) for part in parts)
    if isinstance(domain, sp.Complement):
        inside, outside = (_membership(element, part) for part in domain.args)
        return lambda env: inside(env) and not outside(env)
    raise NoValue(f"cannot decide whether {element} lies in {domain}")


def _is_real(env, ball, expression):
    try:
        check_real(env, ball, expression)
    except Undefined:
        return False
    return not ball.inf


_PREDICATES = {
    "positive": (1,), "negative": (-1,), "nonnegative": (0, 1), "nonpositive": (-1, 0), "nonzero": (-1, 1),
}  # fmt: skip


@condition_rule(AppliedPredicate)
def _(statement):
    name, arguments = statement.function.name, statement.arguments
    if len(arguments) == 2:
        relation = {"eq": sp.Eq, "ne": sp.Ne, "lt": sp.Lt, "le": sp.Le, "gt": sp.Gt, "ge": sp.Ge}.get(name)
        if relation is not None:
            return condition(relation(*arguments, evaluate=False))
    if len(arguments) != 1:
        raise NoValue(f"cannot decide the predicate {name}")
    element = arguments[0]
    ball = compiled(element)
    if name in _PREDICATES:
        wanted = _PREDICATES[name]

        def signed(env):
            value = ball(env)
            return _is_real(env, value, element) and order(env, value, ZERO, element, sp.Integer(0)) in wanted

        return signed
    tests = {
        "zero": lambda env: equal(env, ball(env), ZERO, element, sp.Integer(0)),
        "real": lambda env: _is_real(env, ball(env), element),
        "finite": lambda env: not ball(env).inf,
        "integer": lambda env: is_integer(ball(env)),
        "even": lambda env: is_integer(value := ball(env)) and value.a % 2 == 0,
        "odd": lambda env: is_integer(value := ball(env)) and value.a % 2 == 1,
        "prime": lambda env: is_integer(value := ball(env)) and sp.isprime(value.a),
        "complex": lambda env: not ball(env).inf,
    }
    if name not in tests:
        raise NoValue(f"cannot decide the predicate {name}")
    return tests[name]
