"""What the calls of a derivation accept, and how they refuse the rest."""

import math
import re
import sys
from typing import Any

import sympy as sp
from sympy.logic.boolalg import Boolean

from kexue_lib.derivation._claim import Claim
from kexue_lib.derivation._errors import VacuousClaim


def is_boolean(statement: Any) -> bool:
    """Whether this is something that `holds` can decide."""
    return isinstance(statement, (Boolean, bool)) and not isinstance(statement, sp.Symbol)


def check_text(name: str, value: Any, *, empty: bool = False) -> None:
    """Refuse what is no text, and empty text unless that is allowed."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a str")
    if not (empty or value.strip()):
        raise ValueError(f"{name}: got an empty text, expected words")


def check_chapter(chapter: Any, time_limit: Any) -> None:
    """The arguments of `Derivation`."""
    check_text("chapter", chapter)
    if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", chapter):
        raise ValueError(f"chapter: got {chapter!r}, expected a slug such as 'smooth_topk'")
    if isinstance(time_limit, bool) or not isinstance(time_limit, (int, float)):
        raise TypeError(f"time_limit: got {time_limit!r}, expected a number of seconds")
    if not (time_limit > 0 and math.isfinite(time_limit)):
        raise ValueError(f"time_limit: got {time_limit!r}, expected a positive finite number of seconds")


def conditions(title: str, given: Any) -> tuple[Any, ...]:
    """The conditions as a tuple, those that are True left out."""
    found = given if isinstance(given, (tuple, list)) else (given,)
    for condition in found:
        if not is_boolean(condition) and not isinstance(condition, sp.AppliedPredicate):
            raise TypeError(f"given: got {condition!r}, expected relations or other SymPy Booleans")
    if any(condition in (sp.false, False) for condition in found):
        raise VacuousClaim(title, "given contains a condition that is False")
    return tuple(c for c in found if c not in (sp.true, True))


def side(name: str, value: Any) -> Any:
    """One side of an equation: a SymPy expression or matrix."""
    try:
        found = sp.sympify(value)
    except (sp.SympifyError, AttributeError) as error:
        raise TypeError(f"{name}: got {type(value).__name__}, expected a SymPy expression or matrix") from error
    if isinstance(found, sp.MatrixBase):
        found = found.as_immutable()
    if not isinstance(found, (sp.Expr, sp.MatrixBase, sp.MatrixExpr)):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a SymPy expression or matrix")
    if found.has(sp.nan):
        raise ValueError(f"{name}: got NaN, which equals nothing")
    check_digits(name, found)
    return found


def equation(title: str, lhs: Any, rhs: Any) -> sp.Eq:
    """The equation of two sides of one kind and shape that are not the same by construction."""
    # Imported on first use, like all that decides: importing the package costs little more than SymPy.
    from kexue_lib.derivation._letters import is_matrix
    from kexue_lib.derivation._matrices import shape

    left, right = side("lhs", lhs), side("rhs", rhs)
    if is_matrix(left) != is_matrix(right):
        raise ValueError(f"rhs: got {type(right).__name__}, expected a matrix exactly if lhs is one: {title}")
    if is_matrix(left) and shape(left) != shape(right):
        raise ValueError(f"rhs: got shape {shape(right)}, expected {shape(left)}, the shape of lhs: {title}")
    if left == right:
        raise VacuousClaim(title, f"both sides are {left} by construction")
    return sp.Eq(left, right, evaluate=False)


def check_digits(name: str, *parts: Any) -> None:
    """Refuse numbers that Python does not print: no claim could show them."""
    limit = sys.get_int_max_str_digits()
    bits = limit / math.log10(2)
    for number in set().union(*(part.atoms(sp.Rational) for part in parts)) if limit else ():
        if max(abs(int(number.p)), int(number.q)).bit_length() > bits:
            raise ValueError(f"{name}: got a number of more than {limit} digits, expected one that can be printed")


def check_names(*parts: Any) -> None:
    """Refuse two symbols of one name: a reader could not tell them apart."""
    check_digits("statement", *parts)
    names: dict[str, Any] = {}
    for symbol in sorted(set().union(*(part.free_symbols for part in parts)), key=sp.default_sort_key):
        if isinstance(symbol, sp.Symbol) and not isinstance(symbol, sp.Dummy):
            known = names.setdefault(symbol.name, symbol)
            if known != symbol:
                raise ValueError(f"statement: got two symbols called {symbol.name} with different assumptions")


def claims_used(uses: Any, known: tuple[Claim, ...]) -> list[tuple[Claim, dict[Any, Any]]]:
    """The claims that a statement builds on, each with the values that it is taken at."""
    found = []
    for item in uses if isinstance(uses, (tuple, list)) and not _is_instance(uses) else (uses,):
        claim, values = item if _is_instance(item) else (item, {})
        if not isinstance(claim, Claim):
            raise TypeError(f"uses: got {type(claim).__name__}, expected claims of this derivation, such as d['C3']")
        if claim not in known:
            raise ValueError(f"uses: got {claim.label} of {claim.chapter}, expected a claim of this derivation")
        if claim.evidence == "measured":
            raise ValueError(f"uses: got {claim.label}, a measured number, expected a claim that states a relation")
        for symbol, value in values.items():
            if not _fits(symbol, sp.sympify(value)):
                raise ValueError(f"uses: {claim.label} at {symbol} = {value}: its assumptions do not allow that value")
        found.append((claim, {symbol: sp.sympify(value) for symbol, value in values.items()}))
    return found


def _is_instance(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], dict)


def _fits(symbol: sp.Symbol, value: sp.Expr) -> bool:
    """Every assumption about the symbol is known to hold for the value."""
    skip = {"commutative", "hermitian", "finite", "infinite", "extended_real", "complex"}
    wanted = symbol._assumptions_orig if hasattr(symbol, "_assumptions_orig") else symbol.assumptions0
    return all(getattr(value, f"is_{fact}") == truth for fact, truth in wanted.items() if fact not in skip)
