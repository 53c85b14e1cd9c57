"""Whether an expression without sums, integrals and limits is zero: SymPy's rewritings, each an identity.

Sound on the domain on which the expression is defined, which is shown separately: wherever denominators do not
vanish and logarithms, powers and functions have their values, each rewriting below keeps the value. Two exceptions
are kept away from them. Functions with jumps (floor, Mod, arg, …) are opaque: a rewriting may evaluate them a
digit too early. Pieces are unfolded only where no bound variable chooses among them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp
from sympy.polys.polyerrors import BasePolynomialError

from kexue_lib.derivation._cannot import Cannot, NoRule, attempted
from kexue_lib.derivation._given import bound_symbols, cases, equations, shifted
from kexue_lib.derivation._sign import is_real, prove_nonzero, smooth

LAZY = (sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative, sp.Subs)
DELICATE = (sp.floor, sp.ceiling, sp.frac, sp.Mod, sp.arg, sp.acot, sp.atan2, sp.polar_lift, sp.periodic_argument)
_INFINITE = (sp.nan, sp.zoo, sp.oo, -sp.oo)


def _exp_form(gap: sp.Expr) -> sp.Expr:
    form = sp.expand(gap.rewrite(sp.exp), complex=False)
    return sp.cancel(sp.together(sp.powsimp(form))).expand()


def _powers(gap: sp.Expr) -> sp.Expr:
    return sp.powsimp(sp.expand(sp.powdenest(sp.expand_log(gap))))


def _logs(gap: sp.Expr) -> sp.Expr:
    return sp.simplify(sp.logcombine(sp.expand_log(sp.factor(gap), factor=True)))


_CHEAP: list[tuple[str, Callable[[sp.Expr], sp.Expr]]] = [
    ("expanding", sp.expand),
    ("a common denominator", lambda gap: sp.cancel(sp.together(gap))),
    ("rules for powers and logarithms", _powers),
    ("writing it in exponentials", _exp_form),
    ("clearing radicals", lambda gap: sp.expand(sp.radsimp(sp.together(gap)))),
    ("trigonometric identities", lambda gap: sp.trigsimp(sp.expand(sp.expand_trig(gap)))),
    ("rules for factorials", lambda gap: sp.gammasimp(gap.rewrite(sp.gamma))),
    ("simplifying", sp.simplify),
]
_COSTLY: list[tuple[str, Callable[[sp.Expr], sp.Expr]]] = [
    ("combining logarithms", _logs),
    ("real and imaginary parts", lambda gap: sp.trigsimp(sp.expand(sp.expand_complex(gap)))),
    ("rules for special functions", lambda gap: sp.simplify(sp.expand_func(gap))),
    ("clearing radicals", lambda gap: sp.simplify(sp.sqrtdenest(sp.expand(gap)))),
]


def _binomials_kept(gap: sp.Expr) -> sp.Expr:
    """A binomial is a quotient of gammas unless its upper argument is a negative integer: where it can be, it stays."""
    sound = lambda upper: upper.is_nonnegative or upper.is_integer is False
    return gap.xreplace({e: sp.Dummy() for e in gap.atoms(sp.binomial) if not sound(e.args[0])})


def opaque(gap: sp.Expr, *kinds: type) -> sp.Expr:
    """Each outermost subexpression of these kinds becomes a symbol of its own, equal ones the same."""
    names: dict[Any, sp.Dummy] = {}

    def renamed(e: Any) -> Any:
        if isinstance(e, kinds):
            facts = {"real": True} if e.is_extended_real else {}
            return names.setdefault(e, sp.Dummy(type(e).__name__, **facts))
        if not e.args or not e.has(*kinds):
            return e
        return e.func(*map(renamed, e.args))

    return renamed(gap)


def vanishing_routes(gap: sp.Expr) -> list[tuple[str, Callable[[], bool]]]:
    """The rewritings in words, each as an attempt."""
    gap = _binomials_kept(opaque(gap, *DELICATE, *LAZY))
    return [(words, lambda transform=transform: _becomes_zero(gap, transform)) for words, transform in _CHEAP + _COSTLY]


def vanishes(gap: Any) -> bool:
    """Whether one of the cheap rewritings turns the expression into zero."""
    gap = sp.sympify(gap)
    if gap == 0:
        return True
    if gap.has(*_INFINITE) or (gap.has(sp.Piecewise) and not _unfolded(gap)):
        return False
    gap = _binomials_kept(opaque(gap, *DELICATE, *LAZY))
    return any(_becomes_zero(gap, transform) for _, transform in _CHEAP)


def _becomes_zero(gap: sp.Expr, transform: Callable[[sp.Expr], sp.Expr]) -> bool:
    return attempted(lambda: transform(gap) == 0)


def _unfolded(gap: sp.Expr) -> bool:
    """Pieces have no condition on a bound variable."""
    bound = bound_symbols(gap)
    return not any(piece.free_symbols & bound for piece in gap.atoms(sp.Piecewise))


def zero_under(gap: sp.Expr, given: Sequence[Any], splits: int = 6) -> bool:
    """The expression vanishes wherever the conditions hold: substituted, solved, and case by case."""
    form, rest = shifted(gap, given)
    if rest is None or vanishes(form) or in_ideal(form, rest):
        return True
    for equation in equations(rest):  # equals for equals
        for side, other in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
            if other.free_symbols & bound_symbols(form):
                continue  # put in there it would mean the bound one
            if not side.is_number and form.has(side) and vanishes(form.xreplace({side: other})):
                return True
    branches = cases(form, rest) if splits else None
    return branches is not None and all(zero_under(piece, conditions, splits - 1) for piece, conditions in branches)


def in_ideal(gap: sp.Expr, given: Sequence[Any]) -> bool:
    """The numerator is a combination of the given equations, as polynomials in whatever they are built from.

    Sound for any values of the building blocks: a combination of zeros is zero, and the denominator is defined.
    """
    known = [sp.numer(sp.together(e.lhs - e.rhs)) for e in equations(given)]
    if not known:
        return False
    numerator = sp.numer(sp.together(sp.expand(gap)))
    try:
        polynomials, generators = _polynomials([sp.expand(numerator), *map(sp.expand, known)])
        if len(generators) > 12:
            return False
        basis = sp.groebner(polynomials[1:], *generators, order="grevlex")
        return sp.reduced(polynomials[0], list(basis.exprs), *generators, order="grevlex")[1] == 0
    except (BasePolynomialError, Cannot, ValueError):
        return False


def _polynomials(expressions: list[sp.Expr]) -> tuple[list[sp.Expr], list[sp.Symbol]]:
    """The expressions as polynomials with rational coefficients in opaque building blocks."""
    _, options = sp.parallel_poly_from_expr(expressions)
    names = {block: sp.Dummy() for block in options.gens}
    powers: dict[Any, Any] = {}
    for block, name in names.items():
        powers[block] = name
    done = [sp.Poly(e, *options.gens).as_expr().xreplace(powers) for e in expressions]
    if any(e.free_symbols - set(names.values()) for e in done):
        raise NoRule("building blocks that contain one another")
    return done, list(names.values())


# --- routes for real sides --------------------------------------------------------------------------------------------


def real_routes(lhs: sp.Expr, rhs: sp.Expr, given: Sequence[Any]) -> list[tuple[str, Callable[[], bool]]]:
    """Equal exponentials of real numbers, equal squares of non-negative ones, quotients that are one."""

    def exponentials() -> bool:
        if not (lhs.has(sp.log, sp.asinh, sp.acosh, sp.atanh) or rhs.has(sp.log, sp.asinh, sp.acosh, sp.atanh)):
            return False
        return is_real(lhs, given) and is_real(rhs, given) and vanishes(_exponential(lhs) - _exponential(rhs))

    def squares() -> bool:
        return bool(lhs.is_nonnegative and rhs.is_nonnegative) and vanishes(lhs**2 - rhs**2)

    def quotient() -> bool:
        return rhs != 0 and sp.simplify(lhs / rhs) == 1 and prove_nonzero(rhs, given)

    return [
        ("exponentials of both sides", exponentials),
        ("squares of both sides", squares),
        ("their quotient is one", quotient),
    ]


def _exponential(side: sp.Expr) -> sp.Expr:
    return sp.powsimp(sp.expand(sp.exp(sp.expand_log(side.rewrite(sp.log)))))


def same_derivative(gap: sp.Expr, given: Sequence[Any]) -> bool:
    """The difference has derivative zero on an interval, and vanishes at one of its points.

    Sound because it is shown to be smooth on the whole interval that the assumption about the symbol
    describes: across a jump or a pole equal derivatives say nothing.
    """
    gap, rest = shifted(gap, given)
    if rest is None:
        return True
    if gap.has(*DELICATE, sp.sign, sp.Heaviside, sp.Piecewise, sp.Limit):
        return False
    for symbol in sorted((s for s in gap.free_symbols if isinstance(s, sp.Symbol)), key=str):
        interval = symbol.is_extended_real and (symbol.is_nonnegative or not _broken(symbol))
        if not interval or symbol.is_integer or symbol.is_rational or any(c.has(symbol) for c in rest):
            continue
        if not smooth(gap, symbol, rest):
            continue
        slope = sp.diff(gap if gap.has(sp.Integral) else gap.doit(), symbol)
        start = sp.Integer(1 if symbol.is_positive else 0)
        if vanishes(slope) and vanishes(gap.subs(symbol, start).doit()):
            return True
    return False


def _broken(symbol: sp.Symbol) -> bool:
    """Assumptions that make the symbol's values something else than an interval that holds 0 or 1."""
    return any(fact is not None for fact in (symbol.is_nonpositive, symbol.is_negative)) or symbol.is_nonzero is True
