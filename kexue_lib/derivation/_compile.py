"""Expressions compiled to closures over balls: the environment, arithmetic, functions, entries and Piecewise.

An expression becomes, once, a tree of closures `value(environment) -> Ball`; a sum
of a thousand terms runs through the closures of its body. Nothing of SymPy's evaluates: no subs, evalf, doit or
simplify, so that a value is an opinion independent of SymPy's. The only question put to SymPy is whether a number that
hundreds of digits cannot tell from zero is exactly zero.
"""

from functools import lru_cache

import mpmath
import sympy as sp
from mpmath.libmp import fzero, to_rational
from sympy.core.function import AppliedUndef

from kexue_lib.derivation._balls import (
    ONE,
    ZERO,
    Ball,
    I,
    add,
    fraction,
    hull,
    inverse,
    magnitude,
    mul,
    pi,
    raw,
)
from kexue_lib.derivation._elementary import power
from kexue_lib.derivation._exact import exact_number, is_exactly_zero, written_out
from kexue_lib.derivation._radii import NoValue, Straddle, Undefined, rounding

POINT, ON_DISC, ON_HULL = 0, 1, 2
_MISSING = object()
_MOST_TERMS = 400_000


_LONG = 24  # bits of a number that may stand in an exponent


class Environment:
    """What the symbols mean, and how precisely to compute.

    `values` maps symbols to balls, `point` the free ones to exact SymPy numbers; `mode` says whether the balls are
    points, a disc around a piece of the real line, or a piece of the real line. `need` collects the bits that it takes
    to see every part of the expression: the exponential next to the one in 1 + exp(-1000).
    """

    def __init__(self, point, bits, exact_tests=False):
        self.bits, self.exact_tests, self.mode, self.need = bits, exact_tests, POINT, 0
        self.spent = [0]  # terms and nodes, counted over all precisions of one evaluation
        self.values, self.point, self.overrides = {}, {}, {}
        self.entries, self.functions, self.matrices = {}, {}, {}
        self.nested = False  # inside an integral, whose many values need not be as precise
        for name, value in (point or {}).items():
            if isinstance(name, sp.IndexedBase):
                self.entries[name] = value
            elif isinstance(name, sp.MatrixSymbol):
                self.matrices[name] = value
            elif isinstance(name, sp.Symbol):
                self.point[name] = sp.sympify(value)
            else:
                self.functions[name] = value
        self._given = {}

    def at(self, bits, exact_tests=None):
        """The same point at another precision."""
        other = Environment(None, bits, self.exact_tests if exact_tests is None else exact_tests)
        other.point, other.entries, other.functions = self.point, self.entries, self.functions
        other.matrices, other.overrides, other.mode = self.matrices, self.overrides, self.mode
        other.nested, other.spent = self.nested, self.spent
        other.values = {name: ball for name, ball in self.values.items() if self._given.get(name) is not ball}
        return other

    def symbol(self, name):
        """The ball of a symbol."""
        ball = self.values.get(name)
        if ball is None:
            if name not in self.point:
                raise NoValue(f"{name} has no value")
            ball = self._given[name] = self.values[name] = self.number(self.point[name])
        return ball

    def number(self, value):
        """The ball of an exact SymPy number."""
        if isinstance(value, sp.Integer):
            return Ball.exact(value.p)
        return compiled(sp.sympify(value))(self)

    def bind(self, name, ball):
        """Let a bound variable have a value; returns what `release` needs."""
        before = self.values.get(name, _MISSING)
        self.values[name] = ball
        return name, before

    def release(self, bound):
        """Undo `bind`."""
        name, before = bound
        if before is _MISSING:
            self.values.pop(name, None)
        else:
            self.values[name] = before

    def spend(self, terms):
        """Count terms of sums and nodes of integrals, so that nothing runs without end."""
        self.spent[0] += terms
        if self.spent[0] > _MOST_TERMS:
            raise NoValue("too many terms")

    def needs(self, bits):
        """Ask for so many bits."""
        if bits > self.need:
            self.need = bits

    def settled(self, straddle, arguments, balls):
        """The arguments with the one that is at an exceptional point made exact, if it is there exactly."""
        if not self.exact_tests or self.mode != POINT:
            raise straddle
        place, guess = straddle.position, straddle.guess
        balls = list(balls)
        if guess is None:
            expression = self.substituted(arguments[place])
            if expression is None or is_exactly_zero(sp.im(expression)) is not True:
                raise straddle
            re, _, rad = raw(balls[place], self.bits)
            balls[place] = Ball(re, fzero, rad, 0)
            return balls
        number = sp.Rational(guess.numerator, guess.denominator)
        if not self.is_zero(arguments[place] - number):
            raise straddle
        balls[place] = Ball.exact(guess)
        return balls

    def is_zero(self, expression):
        """Whether the expression is exactly zero at this point; False where that is not known."""
        if not self.exact_tests or self.mode != POINT:
            return False
        expression = self.substituted(expression)
        return expression is not None and is_exactly_zero(expression) is True

    def substituted(self, expression):
        """The expression with the exact values of the point put in, or None where one is not exact."""
        if expression.has(sp.Derivative, sp.Subs, sp.Integral, sp.Limit):
            return None
        if expression.has(sp.Sum, sp.Product):
            expression = written_out(expression, self.point)
            if expression.has(sp.Sum, sp.Product):
                return None
        values = {}
        for entry in expression.atoms(sp.Indexed):
            indices = [self.substituted(index) for index in entry.indices]
            if entry.base not in self.entries or not all(index is not None and index.is_Integer for index in indices):
                return None
            values[entry] = self.entries[entry.base].at(*(int(index) for index in indices))
        for name in expression.xreplace(values).free_symbols:
            ball = self.values.get(name)
            if ball is not None and ball.a is not None:
                values[name] = exact_number(ball)
            elif name in self.point and (ball is None or self._given.get(name) is ball):
                values[name] = self.point[name]
            else:
                return None
        long = any(
            n.p.bit_length() > _LONG or n.q.bit_length() > _LONG for v in values.values() for n in v.atoms(sp.Rational)
        )
        if long and any(power.exp.free_symbols for power in expression.atoms(sp.Pow)):
            return None  # SymPy would write such a power out
        expression = expression.xreplace(values)
        return None if expression.free_symbols or expression.atoms(AppliedUndef) else expression


# --- the registry ---

_RULES, _CONDITIONS = {}, {}


def rule(*kinds):
    """Register how expressions of these kinds compile."""

    def register(function):
        for kind in kinds:
            _RULES[kind] = function
        return function

    return register


@lru_cache(maxsize=8192)
def compiled(expression):
    """The closure of an expression: environment -> Ball."""
    for kind in type(expression).__mro__:
        if kind in _RULES:
            return _RULES[kind](expression)
    raise NoValue(f"cannot evaluate {type(expression).__name__}")


# --- numbers and symbols ---


@rule(sp.Rational, sp.Integer)
def _(expression):
    from fractions import Fraction

    ball = Ball.exact(expression.p if expression.q == 1 else Fraction(expression.p, expression.q))
    return lambda env: ball


@rule(sp.Float)
def _(expression):
    if expression._mpf_ in (mpmath.libmp.finf, mpmath.libmp.fninf, mpmath.libmp.fnan):
        raise NoValue("not a finite float")
    to_rational(expression._mpf_)
    value = fraction(expression._mpf_)
    ball = Ball.exact(value.numerator if value.denominator == 1 else value)
    return lambda env: ball


@rule(sp.core.numbers.ImaginaryUnit)
def _(expression):
    return lambda env: I


@rule(sp.core.numbers.Pi)
def _(expression):
    return lambda env: pi(env.bits)


@rule(sp.core.numbers.Infinity, sp.core.numbers.NegativeInfinity)
def _(expression):
    ball = Ball.infinite(1 if expression is sp.oo else -1)
    return lambda env: ball


@rule(sp.core.numbers.NaN, sp.core.numbers.ComplexInfinity)
def _(expression):
    def value(env):
        raise Undefined("no number")

    return value


_CONSTANTS = {sp.E: mpmath.mp.e, sp.EulerGamma: mpmath.mp.euler, sp.Catalan: mpmath.mp.catalan,
              sp.GoldenRatio: mpmath.mp.phi}  # fmt: skip


@rule(sp.NumberSymbol)
def _(expression):
    constant = _CONSTANTS.get(expression)
    if constant is None:
        raise NoValue(f"cannot evaluate {expression}")

    def value(env):
        number = constant(prec=env.bits + 10)._mpf_
        return Ball(number, fzero, rounding(number, env.bits), 0)

    return value


@rule(sp.Symbol)
def _(expression):
    def value(env):
        ball = env.values.get(expression)
        return ball if ball is not None else env.symbol(expression)

    return value


@rule(sp.Indexed)
def _(expression):
    base, indices = expression.base, [compiled(index) for index in expression.indices]

    def value(env):
        places = tuple(integer(index(env)) for index in indices)
        if env.overrides and (base, places) in env.overrides:
            return env.overrides[base, places]
        if base not in env.entries:
            raise NoValue(f"{base} has no entries")
        return env.number(env.entries[base].at(*places))

    return value


def integer(ball):
    """The integer that a ball is."""
    if ball.a is None or ball.b or type(ball.a) is not int:
        raise NoValue("an index that is no integer")
    return ball.a


@rule(AppliedUndef)
def _(expression):
    arguments = [compiled(argument) for argument in expression.args]

    def value(env):
        function = env.functions.get(expression.func)
        if function is None:
            raise NoValue(f"{expression.func} has no meaning")
        balls = [argument(env) for argument in arguments]
        bound = [env.bind(name, ball) for name, ball in zip(function.variables, balls)]
        try:
            return compiled(function.expr)(env)
        finally:
            for one in reversed(bound):
                env.release(one)

    return value


# --- arithmetic ---


@rule(sp.Add)
def _(expression):
    terms = [compiled(term) for term in sp.Add.make_args(expression)]

    def value(env):
        total, sizes, bits = ZERO, [], env.bits
        for term in terms:
            ball = term(env)
            size = magnitude(ball)
            if size is not None:
                sizes.append(size)
            total = add(total, ball, bits)
        if sizes:
            env.needs(max(sizes) - min(sizes))
        return total

    return value


@rule(sp.Mul)
def _(expression):
    factors = [compiled(factor) for factor in expression.args]

    def value(env):
        product, bits = ONE, env.bits
        infinite = False
        for factor in factors:
            ball = factor(env)
            infinite = infinite or ball.inf
            product = mul(product, ball, bits)
        return product

    return value


@rule(sp.Pow)
def _(expression):
    base, exponent = compiled(expression.base), compiled(expression.exp)
    reciprocal = expression.exp == -1

    def value(env):
        balls = (base(env), exponent(env))
        size = magnitude(balls[1])
        if size is not None and size < -8:
            env.needs(-size)
        for _ in range(3):
            try:
                return inverse(balls[0], env.bits) if reciprocal else power(*balls, env.bits)
            except Straddle as straddle:
                balls = env.settled(straddle, expression.args, balls)
        raise NoValue("a power that stays undecided")

    return value


@rule(sp.Piecewise)
def _(expression):
    branches = [(condition(pair.cond), compiled(pair.expr)) for pair in expression.args]

    def value(env):
        reached = []
        for holds, branch in branches:
            try:
                taken = holds(env)
            except NoValue:
                if env.mode != ON_HULL:
                    raise
                reached.append(branch(env))
                continue
            if taken:
                reached.append(branch(env))
                break
        else:
            if not reached:
                raise Undefined("no branch of a Piecewise")
        ball = reached[0]
        for other in reached[1:]:
            ball = hull(ball, other, env.bits)
        return ball

    return value


@rule(sp.Lambda)
def _(expression):
    raise NoValue(f"cannot evaluate {type(expression).__name__}")


def function_rule(ball_function, expression, *, wide=False, saturation=None):
    """The closure of a function with whole balls for arguments; exceptional points are settled symbolically."""
    arguments = [compiled(argument) for argument in expression.args]

    def value(env):
        balls = [argument(env) for argument in arguments]
        size = magnitude(balls[-1])
        if size is not None and env.mode == POINT:
            if size < -8:
                env.needs(-2 * size)
            elif saturation is not None:
                env.needs(saturation(min(size, 80)))
        options = {"wide": env.mode == ON_HULL} if wide else {}
        for _ in range(3):
            try:
                return ball_function(*balls, env.bits, **options)
            except Straddle as straddle:
                balls = env.settled(straddle, expression.args, balls)
        raise NoValue("an argument that stays undecided")

    return value


# --- conditions ---


def condition_rule(*kinds):
    """Register how conditions of these kinds compile."""

    def register(function):
        for kind in kinds:
            _CONDITIONS[kind] = function
        return function

    return register


@lru_cache(maxsize=4096)
def condition(statement):
    """The closure of a condition: environment -> bool; NoValue where the balls leave it open."""
    statement = sp.sympify(statement)
    for kind in type(statement).__mro__:
        if kind in _CONDITIONS:
            return _CONDITIONS[kind](statement)
    raise NoValue(f"cannot decide {type(statement).__name__}")
