"""The value of an expression to many digits, and whether a statement is true at one point.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

import itertools
from typing import Any, NamedTuple

import mpmath
import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanFunction

DIGITS = 50
_WORKING = 60  # digits of the first comparison; twice as many decide what the first leaves open
_FAR = 50  # beyond this size two sides may meet to more digits than one can compute


class NoValue(Exception):
    """The expression cannot be evaluated to the digits asked for."""


class Truth(NamedTuple):
    """True, False or None (nothing to compare at this point), and the two sides of the part that failed."""

    value: bool | None
    sides: tuple[Any, Any] | None = None


def number(expression: sp.Expr, digits: int = _WORKING) -> mpmath.mpc | None:
    """The value of an expression without free symbols to `digits` digits, or None where it is undefined.

    Raises NoValue when SymPy and mpmath cannot reach the digits.
    """
    expression = _explicit(sp.sympify(expression), digits)
    if expression.has(sp.nan, sp.zoo) or expression in (sp.oo, -sp.oo):
        return None
    try:
        value = expression.evalf(digits, maxn=6 * digits)
    except (ZeroDivisionError, ValueError, TypeError, OverflowError, NotImplementedError, AttributeError) as error:
        raise NoValue(f"{expression}: {error}") from error
    if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        return None
    real, imaginary = value.as_real_imag()
    if not (real.is_Number and imaginary.is_Number):
        raise NoValue(f"no number: {value}")
    with mpmath.workdps(digits + 5):
        return mpmath.mpc(real._to_mpmath(mpmath.mp.prec), imaginary._to_mpmath(mpmath.mp.prec))


def truth(statement: Any, *, far: bool = False) -> Truth:
    """Whether a statement without free symbols is true; `far` says that some coordinate of the point is large."""
    if statement in (sp.true, True):
        return Truth(True)
    if statement in (sp.false, False):
        return Truth(False)
    if isinstance(statement, Relational):
        return _compare(statement, far)
    if isinstance(statement, BooleanFunction):
        return _combine(statement, far)
    if isinstance(statement, sp.Contains):
        value = number(statement.args[0])
        inside = None if value is None else statement.args[1].contains(sp.nsimplify(statement.args[0]))
        return Truth(True if inside == sp.true else False if inside == sp.false else None)
    raise TypeError(f"cannot decide a statement of kind {type(statement).__name__}: {statement}")


def equal_matrices(lhs: sp.MatrixBase, rhs: sp.MatrixBase) -> Truth:
    """Whether two numeric matrices agree entry by entry."""
    open_entries = 0
    for left, right in zip(lhs, rhs):
        entry = _equal(left, right)
        if entry.value is False:
            return entry
        open_entries += entry.value is None
    return Truth(None if open_entries else True)


def _combine(statement: Any, far: bool) -> Truth:
    parts = [truth(part, far=far) for part in statement.args]
    values = [part.value for part in parts]
    failed = next((part for part in parts if part.value is False), Truth(False))
    if isinstance(statement, sp.Not):
        return Truth(None if values[0] is None else not values[0])
    if isinstance(statement, sp.And):
        return failed if False in values else Truth(None if None in values else True)
    if isinstance(statement, sp.Or):
        return Truth(True) if True in values else Truth(None) if None in values else failed
    if isinstance(statement, sp.Implies):
        if values[0] is False or values[1] is True:
            return Truth(True)
        return Truth(None) if None in values else parts[1]
    if isinstance(statement, sp.Equivalent):
        return Truth(None if None in values else len(set(values)) == 1)
    if isinstance(statement, sp.Xor):
        return Truth(None if None in values else sum(values) % 2 == 1)
    raise TypeError(f"cannot decide {type(statement).__name__}")


def _compare(relation: Relational, far: bool) -> Truth:
    lhs, rhs = relation.args
    if isinstance(relation, (sp.Eq, sp.Ne)):
        if _is_matrix(lhs) or _is_matrix(rhs):
            same = equal_matrices(as_explicit(lhs), as_explicit(rhs))
        else:
            same = _equal(lhs, rhs)
        if isinstance(relation, sp.Ne):
            return Truth(None if same.value is None else not same.value, (lhs, rhs))
        return same
    small, large = relation.lts, relation.gts
    if lhs in (sp.oo, -sp.oo) or rhs in (sp.oo, -sp.oo):
        return Truth(bool(relation) if relation in (sp.true, sp.false) else None)
    order = _order(small, large, far)
    if order is None:
        return Truth(None)
    strict = isinstance(relation, (sp.StrictLessThan, sp.StrictGreaterThan))
    holds = order == "below" or (order == "equal" and not strict)
    return Truth(holds, (lhs, rhs))


def _equal(left: sp.Expr, right: sp.Expr) -> Truth:
    if left == right:
        undefined = left.has(sp.nan, sp.zoo, sp.oo, -sp.oo)
        return Truth(None if undefined else True)
    first, second = number(left), number(right)
    if first is None and second is None:
        return Truth(None)
    if first is None or second is None:
        return Truth(False, (left, right))
    size = max(abs(first), abs(second))
    gap = _gap(first, second)
    if gap <= mpmath.mpf(10) ** -DIGITS * size:
        return Truth(True)
    if gap > mpmath.mpf(10) ** -20 * size and size > mpmath.mpf(10) ** -30:
        return Truth(False, (left, right))
    finer = _gap(number(left, 2 * _WORKING), number(right, 2 * _WORKING))
    # Rounding shrinks with the working precision, a true difference does not.
    return Truth(True) if finer <= mpmath.mpf(10) ** -30 * gap else Truth(False, (left, right))


def _gap(first: mpmath.mpc, second: mpmath.mpc) -> mpmath.mpf:
    with mpmath.workdps(3 * _WORKING):
        return abs(first - second)


def _order(small: sp.Expr, large: sp.Expr, far: bool) -> str | None:
    """How `small` stands to `large`: below, equal, above, incomparable; None where nothing is defined or decided."""
    first, second = number(small), number(large)
    if first is None and second is None:
        return None
    if first is None or second is None:
        return "incomparable"
    size = max(abs(first), abs(second))
    noise = mpmath.mpf(10) ** -DIGITS
    if abs(first.imag) > noise * size or abs(second.imag) > noise * size:
        finer = [number(side, 2 * _WORKING) for side in (small, large)]
        if any(abs(new.imag) > mpmath.mpf(10) ** -30 * abs(old.imag) for new, old in zip(finer, (first, second))):
            return "incomparable"
    gap = second.real - first.real
    if abs(gap) > noise * size and size > mpmath.mpf(10) ** -40:
        return "below" if gap > 0 else "above"
    return _order_of_close(small, large, far)


def _order_of_close(small: sp.Expr, large: sp.Expr, far: bool) -> str | None:
    difference = _explicit(large - small, _WORKING)
    if difference.is_zero:
        return "equal"
    try:
        sign = difference.evalf(15, maxn=1500, strict=True)
        if sign.is_comparable:
            return "below" if sign > 0 else "above" if sign < 0 else "equal"
    except (sp.core.evalf.PrecisionExhausted, ValueError, TypeError, ZeroDivisionError, OverflowError):
        pass
    return None if far else "equal"


# --- expressions that evalf should not see ---------------------------------------------------------------------------


def _is_matrix(expression: Any) -> bool:
    return isinstance(expression, (sp.MatrixBase, sp.MatrixExpr)) or getattr(expression, "is_Matrix", False)


def as_explicit(matrix: Any) -> sp.ImmutableMatrix:
    """The entries of a matrix expression with explicit shape."""
    matrix = sp.sympify(matrix).doit()
    return sp.ImmutableMatrix(matrix.as_explicit() if hasattr(matrix, "as_explicit") else matrix)


def _explicit(expression: sp.Expr, digits: int) -> sp.Expr:
    """Write out finite sums and products, and evaluate integrals and limits numerically."""
    if not expression.has(sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.MatrixExpr, sp.Derivative, sp.Subs):
        return expression
    if isinstance(expression, (sp.Sum, sp.Product)):
        return _explicit(write_out(expression, digits), digits)
    if isinstance(expression, sp.Integral):
        return _quadrature(expression, digits)
    if isinstance(expression, sp.Limit):
        return _extrapolated(expression, digits)
    if isinstance(expression, (sp.Derivative, sp.Subs, sp.Trace, sp.Determinant)) or expression.is_Matrix:
        done = expression.doit()
        if done == expression:
            raise NoValue(f"cannot evaluate {expression}")
        return _explicit(done, digits)
    if not expression.args:
        return expression
    return expression.func(*(_explicit(argument, digits) for argument in expression.args))


def write_out(expression: sp.Sum | sp.Product, digits: int) -> sp.Expr:
    """A finite sum or product term by term, by Karr's convention where the upper limit is below the lower one."""
    *rest, (index, lower, upper) = expression.limits
    lower, upper = sp.simplify(lower), sp.simplify(upper)
    inner = expression.func(expression.function, *rest) if rest else expression.function
    if not (lower.is_Integer and upper.is_Integer):
        if upper is sp.oo or lower is -sp.oo:
            return _infinite(expression, digits)
        raise NoValue(f"a limit of {expression} is no integer")
    if upper - lower > 2000:
        raise NoValue(f"too many terms in {expression}")
    combine = sp.Add if isinstance(expression, sp.Sum) else sp.Mul
    if upper >= lower - 1:
        return combine(*(inner.xreplace({index: sp.Integer(k)}) for k in range(lower, upper + 1)))
    total = combine(*(inner.xreplace({index: sp.Integer(k)}) for k in range(upper + 1, lower)))
    return -total if combine is sp.Add else 1 / total


def _infinite(expression: sp.Sum | sp.Product, digits: int) -> sp.Expr:
    try:
        value = expression.evalf(digits + 10)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise NoValue(str(error)) from error
    if not value.is_number or value.has(sp.Sum, sp.Product):
        raise NoValue(f"cannot add up {expression}")
    return value


def _quadrature(integral: sp.Integral, digits: int) -> sp.Expr:
    """A definite integral by tanh-sinh quadrature, split at kinks, at two depths that have to agree."""
    *inner, limit = integral.limits
    if len(limit) != 3:
        raise NoValue(f"{integral} has no limits")
    variable, lower, upper = limit
    integrand = sp.Integral(integral.function, *inner) if inner else integral.function
    integrand, variable = integrand.xreplace({variable: (real := sp.Dummy("t", real=True))}), real
    if lower == upper:
        return sp.Integer(0)
    sign = 1
    if upper < lower:
        lower, upper, sign = upper, lower, -1
    with mpmath.workdps(digits + 15):
        f = _function(variable, integrand, digits)
        cuts = [lower, *_kinks(integrand, variable, lower, upper), upper]
        cuts = [
            mpmath.mpf(cut.evalf(digits + 15)) if cut.is_finite else mpmath.mpf(str(cut).replace("oo", "inf"))
            for cut in cuts
        ]
        try:
            total = _oscillating(f, integrand, variable, cuts, digits)
            if total is None:
                total = _adaptive(f, cuts, digits)
        except (ValueError, ZeroDivisionError, OverflowError, TypeError, ArithmeticError) as error:
            raise NoValue(f"cannot integrate {integral}: {error}") from error
        total = mpmath.mpc(total)
        return sign * (sp.Float(total.real, digits + 10) + sp.I * sp.Float(total.imag, digits + 10))


def _adaptive(f: Any, cuts: list[Any], digits: int) -> Any:
    finite = [cut for cut in cuts if abs(cut) != mpmath.inf] or [mpmath.mpf(0)]
    if cuts[0] == -mpmath.inf:
        finite = [finite[0] - 8, finite[0] - 1, *finite]
    if cuts[-1] == mpmath.inf:
        finite = [*finite, finite[-1] + 1, finite[-1] + 8]
    points = sorted({*cuts, *finite})
    inner = [
        (left + right) / 2 if abs(left) + abs(right) < mpmath.inf else min(left, right, key=abs)
        for left, right in itertools.pairwise(points)
    ]
    size = max(abs(f(point)) for point in inner) or mpmath.mpf(1)
    fine = 2 * mpmath.mp.dps + 20  # singular ends need the digits twice over
    for dps in (fine,) if any(_singular(f, end) for end in points) else (mpmath.mp.dps, fine):
        with mpmath.workdps(dps):
            total, error = mpmath.quad(lambda t: f(t) / size, points, error=True, maxdegree=11)
        if error <= mpmath.mpf(10) ** -(digits - 5) * max(abs(total), 1):
            return total * size
    raise NoValue("quadrature does not converge")


def _singular(f: Any, end: Any) -> bool:
    if abs(end) == mpmath.inf:
        return False
    try:
        return not mpmath.isfinite(f(end))
    except (ZeroDivisionError, ValueError, OverflowError):
        return True


def _oscillating(f: Any, integrand: sp.Expr, variable: sp.Symbol, cuts: list[Any], digits: int) -> Any:
    """Integrals over a half-line of a sine or cosine of a linear argument that is not damped exponentially."""
    if mpmath.inf not in (abs(cuts[0]), abs(cuts[-1])) or integrand.has(sp.Piecewise):
        return None
    frequencies = {
        abs(wave.args[0].coeff(variable)) for wave in integrand.atoms(sp.sin, sp.cos) if wave.args[0].has(variable)
    }
    damped = any(variable in atom.free_symbols and atom.args[0].is_real for atom in integrand.atoms(sp.exp))
    if len(frequencies) != 1 or damped or not next(iter(frequencies)):
        return None
    omega = mpmath.mpf(next(iter(frequencies)).evalf(digits + 15))
    if cuts[0] != -mpmath.inf:
        return mpmath.quadosc(f, [cuts[0], mpmath.inf], omega=omega)
    upper = mpmath.mpf(0) if cuts[-1] == mpmath.inf else cuts[-1]
    total = mpmath.quadosc(lambda t: f(-t), [-upper, mpmath.inf], omega=omega)
    return total + (mpmath.quadosc(f, [upper, mpmath.inf], omega=omega) if cuts[-1] == mpmath.inf else 0)


def _function(variable: sp.Symbol, integrand: sp.Expr, digits: int) -> Any:
    if integrand.has(sp.Integral, sp.Limit, sp.Sum, sp.Product):
        if integrand.has(sp.Sum, sp.Product):
            integrand = integrand.replace(lambda e: isinstance(e, (sp.Sum, sp.Product)), lambda e: write_out(e, digits))

        def pointwise(t: Any) -> Any:
            value = number(integrand.xreplace({variable: sp.Float(t, digits + 10)}), digits)
            if value is None:
                raise NoValue("the integrand is undefined")
            return value

        if integrand.has(sp.Integral, sp.Limit, sp.Sum, sp.Product):
            return pointwise
    return sp.lambdify(variable, integrand, modules="mpmath")


def _kinks(integrand: sp.Expr, variable: sp.Symbol, lower: sp.Expr, upper: sp.Expr) -> list[sp.Expr]:
    edges: list[sp.Expr] = []
    for atom in integrand.atoms(sp.Abs, sp.sign, sp.Heaviside, sp.Max, sp.Min, Relational):
        arguments = atom.args[:1] if isinstance(atom, (sp.Abs, sp.sign, sp.Heaviside)) else atom.args
        differences = [a - b for a, b in itertools.combinations(arguments, 2)] or list(arguments)
        for difference in differences:
            if difference.is_polynomial(variable) and difference.has(variable):
                edges += [root for root in sp.Poly(difference, variable).all_roots() if root.is_real]
    return sorted({edge for edge in edges if lower < edge < upper})


def _extrapolated(limit: sp.Limit, digits: int) -> sp.Expr:
    """A limit from values ever closer to the point; SymPy's own limit at this point where they converge slowly."""
    expression, variable, target, side = limit.args
    sides = ["+", "-"] if str(side) == "+-" else [str(side)]
    values = []
    for direction in sides:
        for power in (digits + 15, 2 * digits + 15):
            small = sp.Float(f"1e-{power}", 8 * digits)  # no exact number: powers such as (1 + 1/x)^x would explode
            near = 1 / small if target is sp.oo else -1 / small if target is -sp.oo else target
            if target.is_finite:
                near = target + small if direction == "+" else target - small
            values.append(number(expression.xreplace({variable: near}), 4 * digits))
    if None not in values:
        spread = max(_gap(value, values[-1]) for value in values)
        if spread <= mpmath.mpf(10) ** -(digits - 5) * max(abs(values[-1]), mpmath.mpf(10) ** -5):
            last = values[-1]
            return sp.Float(last.real, digits + 10) + sp.I * sp.Float(last.imag, digits + 10)
    exact = limit.doit()
    if exact.has(sp.Limit) or exact.has(sp.AccumBounds):
        raise NoValue(f"no limit found for {limit}")
    return exact


def undefined_functions(statement: Any) -> set[Any]:
    """The unknown functions that occur in a statement."""
    return {application.func for application in statement.atoms(AppliedUndef)}


def is_boolean(statement: Any) -> bool:
    """Whether this is something that `holds` can decide."""
    return isinstance(statement, (Boolean, bool)) and not isinstance(statement, sp.Symbol)
