"""Orders between polynomials under polynomial conditions: the difference as a sum of products of what is known.

Each condition says that some polynomial is not negative; so are products of them, and sums of such products with
coefficients that are not negative (Handelman). Whether the difference is such a sum is a linear programme in these
coefficients, solved in rational numbers: the identity found is exact. It is positive where a product of strict
conditions, or a positive constant, takes part.
"""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import sympy as sp

from kexue_lib.derivation._given import cases, parts

_MOST = 8  # symbols
_FACTS = 12  # conditions, the signs of symbols among them
_TERMS = 90  # products
_SPLITS = 3  # absolute values, one after another

Fact = tuple[sp.Poly, bool]  # not negative; positive


def follows_by_products(gap: sp.Expr, strict: bool, given: Sequence[Any], splits: int = _SPLITS) -> bool:
    """Whether `gap > 0` (`>= 0` if not strict) is proved by a sum of products of conditions."""
    branches = cases(gap, given) if splits else None
    if branches is not None:
        return all(follows_by_products(piece, strict, conditions, splits - 1) for piece, conditions in branches)
    numerator, denominator = sp.fraction(sp.together(gap))
    forms = (gap, numerator) if denominator.is_positive else (gap,)
    if any(_is_above_zero(form, strict, given) for form in dict.fromkeys(map(sp.expand, forms))):
        return True
    constant, factors = sp.factor_list(numerator)
    return len(factors) > 1 and bool(denominator.is_positive) and _by_factors(constant, factors, strict, given)


def _by_factors(constant: sp.Expr, factors: Sequence[tuple[sp.Expr, int]], strict: bool, given: Sequence[Any]) -> bool:
    """The product of real factors of known signs."""
    for factor, power in factors:
        if power % 2 == 0:
            if strict or _letters(factor, {}) is None:
                return False
        elif _is_above_zero(-factor, strict, given):
            constant = -constant
        elif not _is_above_zero(factor, strict, given):
            return False
    return bool(constant.is_positive)


def _is_above_zero(form: sp.Expr, strict: bool, given: Sequence[Any]) -> bool:
    known = [(sp.expand(side), sharp) for side, sharp in sides(given)]
    letters = _letters(form, {})
    if letters is None:
        return False
    for side, _ in known:
        letters = _letters(side, letters) or letters
    goal = _polynomial(form, letters)
    facts = list(_signs(letters))
    facts += [(one, sharp) for side, sharp in known if (one := _polynomial(side, letters)) is not None]
    facts = list(dict.fromkeys(facts))
    if goal is None or len(letters) > _MOST or len(facts) > _FACTS:
        return False
    return any(_is_sum(goal, strict, _products(facts, factors, goal)) for factors in (1, 2, 3))


def _letters(expression: sp.Expr, known: dict[sp.Expr, sp.Symbol]) -> dict[sp.Expr, sp.Symbol] | None:
    """A letter for each symbol, root, exponential or other real part that the expression is a polynomial in."""
    try:
        parts_ = sp.Poly(sp.expand(expression)).gens
    except sp.GeneratorsNeeded:
        parts_ = ()
    if not all(part.is_real for part in parts_):
        return None
    return known | {part: sp.Dummy() for part in sorted(parts_, key=str) if part not in known}


def _polynomial(expression: sp.Expr, letters: dict[sp.Expr, sp.Symbol]) -> sp.Poly | None:
    written = sp.expand(expression).xreplace(letters)
    if not written.free_symbols <= set(letters.values()) or not written.is_polynomial(*letters.values()):
        return None
    polynomial = sp.Poly(written, *letters.values())
    return polynomial if all(c.is_Rational for c in polynomial.coeffs()) else None


def _signs(letters: dict[sp.Expr, sp.Symbol]) -> Iterator[Fact]:
    """What the assumptions on the parts say: above, below zero, at most one."""
    for part, letter in letters.items():
        for side, value in ((part, letter), (-part, -letter), (1 - part, 1 - letter)):
            if side.is_nonnegative:
                yield sp.Poly(value, *letters.values()), bool(side.is_positive)


def sides(given: Sequence[Any]) -> Iterator[tuple[sp.Expr, bool]]:
    """What the conditions say is not negative, and whether it is positive."""
    for condition in parts(given):
        if isinstance(condition, sp.Eq) and isinstance(condition.lhs, sp.Expr):
            found, strict = (condition.lhs - condition.rhs, condition.rhs - condition.lhs), False
        elif isinstance(condition, (sp.Gt, sp.Ge, sp.Lt, sp.Le)):
            found, strict = (condition.gts - condition.lts,), isinstance(condition, (sp.Gt, sp.Lt))
        else:
            continue
        for side in itertools.chain(*map(_without_absolute_values, found)):
            yield side, strict


def _without_absolute_values(side: sp.Expr) -> list[sp.Expr]:
    """c - |e| is not above c - e and c + e: each is known once the former is."""
    found = [side]
    for atom in side.atoms(sp.Abs):
        factor: sp.Expr = side.coeff(atom)
        if factor.is_negative and not (side - factor * atom).has(atom):
            found = [one.xreplace({atom: sign * atom.args[0]}) for one in found for sign in (1, -1)]
    return found


def _products(facts: Sequence[Fact], factors: int, goal: sp.Poly) -> list[Fact]:
    """One, and the products of up to so many facts, of a degree that may cancel."""
    highest = max(goal.total_degree(), factors)
    found: dict[sp.Poly, bool] = {goal.one: True}
    for count in range(1, factors + 1):
        for chosen in itertools.combinations_with_replacement(facts, count):
            if sum(p.total_degree() for p, _ in chosen) <= highest + 1:
                product = sp.prod([p for p, _ in chosen], start=goal.one)
                found[product] = found.get(product, False) or all(sharp for _, sharp in chosen)
    return list(found.items())


def _is_sum(goal: sp.Poly, strict: bool, products: Sequence[Fact]) -> bool:
    products = _useful(goal, products)
    if len(products) > _TERMS:
        return False
    monomials = sorted({m for p in (goal, *(p for p, _ in products)) for m in p.monoms()})
    rows = [[Fraction(str(p.coeff_monomial(m))) for p in (*(p for p, _ in products), goal)] for m in monomials]
    return _has_solution(rows, [int(sharp) for _, sharp in products] if strict else None)


def _has_solution(rows: list[list[Fraction]], weights: list[int] | None) -> bool:
    """Whether rows[:, :-1] c = rows[:, -1] for some c >= 0, with weights · c > 0 where weights are given.

    The simplex method in rational numbers: by Bland's rule it ends. First the sum of slacks is brought to zero, one
    for each row, then the weights are raised until their sum is positive.
    """
    count, rows = len(rows[0]) - 1, [row if row[-1] >= 0 else [-x for x in row] for row in rows]
    basis: list[int | None] = [None] * len(rows)  # None: the slack of that row
    while True:
        left = [sum((row[k] for row, b in zip(rows, basis) if b is None), Fraction(0)) for k in (*range(count), -1)]
        if not left[-1]:
            break
        column = next((k for k in range(count) if left[k] > 0), None)
        if column is None or not _pivot(rows, basis, column):
            return False
    for place, row in enumerate(rows):  # slacks of zero leave
        column = next((k for k in range(count) if row[k]), None)
        if basis[place] is None and column is not None:
            _exchange(rows, basis, place, column)
    if weights is None:
        return True
    while True:
        value = lambda k: sum((weights[b] * row[k] for row, b in zip(rows, basis) if b is not None), Fraction(0))
        if value(-1) > 0:
            return True
        column = next((k for k in range(count) if weights[k] > value(k)), None)
        if column is None:
            return False
        if not _pivot(rows, basis, column):  # without bound
            return True


def _pivot(rows: list[list[Fraction]], basis: list[int | None], column: int) -> bool:
    """Let the column into the basis, for the row that first reaches zero; False where none does."""
    steps = [(row[-1] / row[column], -1 if b is None else b, i)
             for i, (row, b) in enumerate(zip(rows, basis)) if row[column] > 0]  # fmt: skip
    if steps:
        _exchange(rows, basis, min(steps)[2], column)
    return bool(steps)


def _exchange(rows: list[list[Fraction]], basis: list[int | None], place: int, column: int) -> None:
    pivot = rows[place][column]
    rows[place] = [x / pivot if x else x for x in rows[place]]
    for i, row in enumerate(rows):
        if i != place and row[column]:
            factor = row[column]
            rows[i] = [x - factor * y if y else x for x, y in zip(row, rows[place])]
    basis[place] = column


def _useful(goal: sp.Poly, products: Sequence[Fact]) -> list[Fact]:
    """Without those that have a monomial which nothing could cancel: of the goal's, or of another's other sign."""
    kept = list(products)
    while True:
        signs = {(m, c > 0) for p, _ in kept for m, c in p.terms()}
        target = set(goal.monoms())
        left = [(p, s) for p, s in kept if all(m in target or (m, c < 0) in signs for m, c in p.terms())]
        if len(left) == len(kept):
            return kept
        kept = left
