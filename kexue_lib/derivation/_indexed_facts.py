"""What is known about sizes, indices and entries: assumptions and conditions, as linear facts over the integers."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import sympy as sp
from sympy.assumptions.assume import AppliedPredicate
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanFunction

Prover = Callable[[Boolean, Sequence[Boolean]], bool]

_MOST_CONSTRAINTS = 240
_LARGEST_BASE = 12


class ForEvery(BooleanFunction):
    """A condition on every index of a range: ``ForEvery(x[k] <= M, (k, 1, n))``."""

    def __new__(cls, condition: Boolean, limit: Iterable[object]) -> Boolean:
        return sp.Basic.__new__(cls, condition, sp.Tuple(*limit))

    @property
    def condition(self) -> Boolean:
        """The condition, with the index as a symbol."""
        return self.args[0]

    @property
    def limit(self) -> sp.Tuple:
        """The index, its first and its last value."""
        return self.args[1]

    @property
    def bound_symbols(self) -> list[sp.Symbol]:
        """The index."""
        return [self.limit[0]]

    @property
    def free_symbols(self) -> set[sp.Basic]:
        """The symbols of the condition and of the range, without the index."""
        index, *ends = self.limit
        unbound = {symbol for symbol in self.condition.free_symbols if not symbol.has(index)}
        return unbound.union(*(end.free_symbols for end in ends))

    def _latex(self, printer: object) -> str:
        index, low, high = (printer._print(part) for part in self.limit)
        return rf"{printer._print(self.condition)} \quad ({index} = {low}, \ldots, {high})"

    def _sympystr(self, printer: object) -> str:
        index, low, high = (printer._print(part) for part in self.limit)
        return f"{printer._print(self.condition)} for every {index} = {low}, ..., {high}"


class Facts:
    """The conditions of a statement: integers that are not negative, numbers that are not zero, equations.

    `given` are conditions that hold; `nonzero` are numbers that are not zero wherever the statement is defined, such as
    its denominators; `prove` decides statements without sums.
    """

    def __init__(self, given: Sequence[Boolean], prove: Prover | None = None, nonzero: Sequence[sp.Expr] = ()) -> None:
        self.prove = prove
        self.given: list[Boolean] = [part for condition in given for part in sp.And.make_args(condition)]
        self.nonzero = list(nonzero)
        self.linear: list[sp.Expr] = []
        self.equations: list[sp.Eq] = []
        self.universal: list[ForEvery] = []
        self.forms: dict[sp.Basic, sp.Basic] = {}
        for condition in self.given:
            self._read(condition)

    def _read(self, condition: Boolean) -> None:
        if isinstance(condition, ForEvery):
            self.universal.append(condition)
        elif isinstance(condition, AppliedPredicate):
            self._read_predicate(condition)
        elif isinstance(condition, Relational) and not all(isinstance(side, sp.Expr) for side in condition.args):
            return
        elif isinstance(condition, sp.Ne):
            self.nonzero.append(condition.lhs - condition.rhs)
        elif isinstance(condition, sp.Eq):
            self.equations.append(condition)
            if (condition.lhs - condition.rhs).is_integer:
                self.linear += [condition.lhs - condition.rhs, condition.rhs - condition.lhs]
        elif isinstance(condition, Relational):
            strict = isinstance(condition, (sp.StrictLessThan, sp.StrictGreaterThan))
            self._read_order(condition.gts - condition.lts, strict)

    def _read_predicate(self, condition: AppliedPredicate) -> None:
        if len(condition.arguments) != 1 or not isinstance(condition.arguments[0], sp.Expr):
            return
        for predicate, strict in ((sp.Q.positive, True), (sp.Q.nonnegative, False)):
            if condition.function == predicate:
                self._read_order(condition.arguments[0], strict)
        if condition.function == sp.Q.nonzero:
            self.nonzero.append(condition.arguments[0])

    def _read_order(self, gap: sp.Expr, strict: bool) -> None:
        if strict:
            self.nonzero.append(gap)
        if gap.is_integer:
            self.linear.append(gap - 1 if strict else gap)

    def with_range(self, index: sp.Symbol, low: sp.Expr, high: sp.Expr) -> "Facts":
        """The facts inside of a sum, where the index lies in its range: only where the sum is not turned around."""
        if not self.at_least_zero(high - low + 1):
            return self
        inner = Facts((), self.prove, self.nonzero)
        inner.given = [*self.given, low <= index, index <= high]
        inner.given = [condition for condition in inner.given if condition not in (sp.true, sp.false)]
        inner.linear = [*self.linear, index - low, high - index]
        inner.equations, inner.universal = self.equations, self.universal
        return inner

    def at_least_zero(self, gap: sp.Expr) -> bool:
        """Whether an integer expression is proved not to be negative, from the linear facts.

        Fourier and Motzkin: the facts together with the contrary, -gap - 1 >= 0, have a combination with nonnegative
        factors that reads "a negative number >= 0". Monomials such as n m count as unknowns of their own.
        """
        gap = sp.expand(gap)
        if not gap.is_integer:
            return False
        if gap.is_nonnegative is not None:
            return gap.is_nonnegative
        constraints = [_linear_form(f) for f in (-gap - 1, *self.linear)]
        unknowns = {m for constraint in constraints for m in constraint if m != 1}
        for monomial in sorted(unknowns, key=sp.default_sort_key):
            if monomial.is_integer and monomial.is_positive:
                constraints.append({monomial: sp.Integer(1), sp.Integer(1): sp.Integer(-1)})
            elif monomial.is_integer and monomial.is_nonnegative:
                constraints.append({monomial: sp.Integer(1)})
        return _contradictory(constraints)

    def is_inside(self, index: sp.Expr, low: sp.Expr, high: sp.Expr) -> bool:
        """Whether the index is proved to lie in the range, which then is not empty."""
        return bool(index.is_integer) and self.at_least_zero(index - low) and self.at_least_zero(high - index)

    def is_outside(self, index: sp.Expr, low: sp.Expr, high: sp.Expr) -> bool:
        """Whether the index is proved to lie outside of a range that is not turned around."""
        if not index.is_integer or not self.at_least_zero(high - low + 1):
            return False
        return self.at_least_zero(low - 1 - index) or self.at_least_zero(index - high - 1)

    def smallest(self, size: sp.Symbol) -> int | None:
        """The largest number that the size is proved to reach, at most a dozen."""
        known = [b for b in range(_LARGEST_BASE + 1) if self.at_least_zero(size - b)]
        return max(known, default=None)

    def is_nonzero(self, value: sp.Expr) -> bool:
        """Whether a number is proved not to be zero."""
        if value.is_nonzero or sp.factor_terms(value).is_nonzero:
            return True
        for known in self.nonzero:
            if not (known.free_symbols == value.free_symbols and known.free_symbols):
                continue
            ratio = sp.cancel(value / known)
            if ratio.is_nonzero and not ratio.has(sp.zoo, sp.nan):
                return True
        if _is_turn(value):
            return self._is_proper_turn(value)
        if has_indexed(value):
            return False
        return self.decides(sp.Ne(value, 0))

    def _is_proper_turn(self, value: sp.Expr) -> bool:
        """exp(2 pi I u) is one at the integers u only; d / n is none for 0 < |d| < n, or where d mod n is not zero."""
        (turn,) = (term for term in sp.Add.make_args(value) if not term.is_Number)
        number, power = turn.as_coeff_Mul()
        parts = sum(part.exp for part in sp.Mul.make_args(power))
        angle = sp.cancel(sp.together(parts / (2 * sp.pi * sp.I)))
        step, size = sp.fraction(angle)
        if sp.Add(*sp.Add.make_args(value)) != number * power - number or not (step.is_integer and size.is_integer):
            return False
        if not self.at_least_zero(size - 1):
            return False
        steps = (step, -step)
        if any(
            sp.expand(known - sign * sp.Mod(d, size)) == 0 for known in self.nonzero for d in steps for sign in (1, -1)
        ):
            return True
        apart = any(sp.expand(known - d) == 0 for known in self.nonzero for d in steps)
        apart = apart or any(self.at_least_zero(d - 1) for d in steps)
        return apart and all(self.at_least_zero(size - 1 - d) for d in steps)

    def decides(self, statement: Boolean) -> bool:
        """What the caller's prover says of a statement without sums, under the conditions without sums."""
        if statement in (sp.true, sp.false):
            return statement == sp.true
        if self.prove is None:
            return False
        return bool(self.prove(statement, [c for c in self.given if not has_indexed(c)]))


def has_indexed(expression: sp.Basic) -> bool:
    """Whether sums, products, entries or conditions on ranges occur."""
    return expression.has(sp.Sum, sp.Product, sp.Indexed, ForEvery)


def denominators(expression: sp.Basic) -> Iterator[sp.Expr]:
    """What is divided by on every path to the value: not inside of sums, which may be empty, or of pieces."""
    if isinstance(expression, (sp.Sum, sp.Product, sp.Piecewise, Boolean, sp.Integral, sp.Limit, sp.Derivative)):
        return
    if isinstance(expression, sp.Pow) and expression.exp.is_negative:
        yield expression.base
    elif isinstance(expression, sp.log):
        yield expression.args[0]
    for part in expression.args:
        yield from denominators(part)


def _is_turn(value: sp.Expr) -> bool:
    terms = [term for term in sp.Add.make_args(value) if not term.is_Number]
    if len(terms) != 1 or not value.is_Add:
        return False
    factors = sp.Mul.make_args(terms[0].as_coeff_Mul()[1])
    return all(isinstance(factor, sp.exp) and factor.exp.has(sp.I) for factor in factors)


def _linear_form(gap: sp.Expr) -> dict[sp.Expr, sp.Expr]:
    return dict(sp.expand(gap).as_coefficients_dict())


def _contradictory(constraints: list[dict[sp.Expr, sp.Expr]]) -> bool:
    while True:
        constraints = _without_repeats(constraints)
        unknowns = {m for constraint in constraints for m in constraint if m != 1}
        if any(set(c) <= {sp.Integer(1)} and c.get(sp.Integer(1), 0) < 0 for c in constraints):
            return True
        if not unknowns or len(constraints) > _MOST_CONSTRAINTS:
            return False
        constraints = _eliminated(constraints, min(unknowns, key=sp.default_sort_key))


def _without_repeats(constraints: list[dict[sp.Expr, sp.Expr]]) -> list[dict[sp.Expr, sp.Expr]]:
    kept = ({m: c for m, c in constraint.items() if c != 0} for constraint in constraints)
    return list({frozenset(constraint.items()): constraint for constraint in kept}.values())


def _eliminated(constraints: list[dict[sp.Expr, sp.Expr]], unknown: sp.Expr) -> list[dict[sp.Expr, sp.Expr]]:
    rest = [c for c in constraints if unknown not in c]
    above = [c for c in constraints if c.get(unknown, 0) > 0]
    below = [c for c in constraints if c.get(unknown, 0) < 0]
    for one in above:
        for other in below:
            keys = sorted(set(one) | set(other), key=sp.default_sort_key)
            left, right = -other[unknown], one[unknown]
            combined = {key: left * one.get(key, 0) + right * other.get(key, 0) for key in keys if key != unknown}
            rest.append(combined)
    return rest


# --- signs ------------------------------------------------------------------------------------------------------------


def is_real(expression: sp.Expr) -> bool:
    """Whether an expression is proved to be real, with sums of real terms."""
    if expression.is_real:
        return True
    if isinstance(expression, (sp.Sum, sp.Product)):
        return is_real(expression.function) and all(len(limit) == 3 for limit in expression.limits)
    if isinstance(expression, (sp.Add, sp.Mul, sp.exp, sp.KroneckerDelta)):
        return all(is_real(part) for part in expression.args)
    if isinstance(expression, sp.Pow):
        return is_real(expression.base) and bool(expression.exp.is_Integer)
    return False


def is_positive(expression: sp.Expr, facts: Facts) -> bool:
    """Whether an expression is proved to be positive, by the signs of its parts."""
    return _sign(expression, facts, True)


def is_nonnegative(expression: sp.Expr, facts: Facts) -> bool:
    """Whether an expression is proved not to be negative, by the signs of its parts."""
    return _sign(expression, facts, False)


def _sign(expression: sp.Expr, facts: Facts, strict: bool) -> bool:
    if expression.is_positive or (not strict and expression.is_nonnegative):
        return True
    if isinstance(expression, sp.Add):
        return all(_sign(part, facts, False) for part in expression.args) and (
            not strict or any(_sign(part, facts, True) for part in expression.args)
        )
    if isinstance(expression, sp.Mul):
        return all(_sign(part, facts, strict) for part in expression.args)
    if isinstance(expression, sp.exp):
        return is_real(expression.exp)
    if isinstance(expression, sp.Pow):
        base, exponent = expression.args
        if not strict and exponent.is_even and exponent.is_positive and is_real(base):
            return True
        return is_real(exponent) and (
            _sign(base, facts, True) or (not strict and bool(exponent.is_positive) and _sign(base, facts, False))
        )
    if isinstance(expression, sp.Sum):
        return _sum_sign(expression, facts, strict)
    if isinstance(expression, sp.Product):
        return is_real(expression.function) and _sign(expression.function, facts, True)
    return False


def _sum_sign(total: sp.Sum, facts: Facts, strict: bool) -> bool:
    """A sum that is not turned around, of terms with one sign; strictly so where it is not empty."""
    for limit in reversed(total.limits):
        if len(limit) != 3 or not facts.at_least_zero(limit[2] - limit[1] + (0 if strict else 1)):
            return False
        facts = facts.with_range(*limit)
    return _sign(total.function, facts, strict)
