"""Proofs by induction for every n, their near misses, and the rules that a step uses."""

from typing import Any

import pytest
import sympy as sp
from sympy import And, Derivative, Determinant, Eq, FunctionMatrix, Identity, Lambda, MatrixSymbol, Product, Q, Sum
from sympy.core.cache import clear_cache
from sympy.core.relational import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

from kexue_lib.derivation._deciding import decide, decide_induction
from kexue_lib.derivation._errors import Refusal
from kexue_lib.derivation._function_matrices import smaller
from kexue_lib.derivation._given import normalised
from kexue_lib.derivation._induction import NoProof, instance, prove_induction
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._matrices import MatrixSum, matrices_equal
from kexue_lib.derivation._proof import plain
from kexue_lib.derivation._recurrences import Recurrence, instances, rules

n = sp.Symbol("n", integer=True, nonnegative=True)
k = sp.Symbol("k", integer=True, nonnegative=True)
kp = sp.Symbol("k", integer=True, positive=True)
i, j, l = sp.symbols("i j l", integer=True, nonnegative=True)
q, g = sp.symbols("q g", integer=True)
x, t, r = sp.symbols("x t r", real=True)
d = sp.Symbol("d", integer=True, positive=True)
P, F, E = sp.Function("P"), sp.Function("F"), sp.Function("E")
X = sp.IndexedBase("x")
A, D, T = (MatrixSymbol(name, d, d) for name in "ADT")


def prove(statement: Any, given: Any) -> bool:
    """Ordinary statements: by simplification and SymPy's assumptions, lower bounds of a symbol put in."""
    if statement in (True, False, sp.true, sp.false):
        return bool(statement)
    if statement in given:
        return True
    lhs, rhs = statement.args
    if isinstance(statement, Eq):
        return matrices_equal(lhs, rhs, given, prove) if is_matrix(lhs) else sp.simplify(lhs - rhs) == 0
    gap = lhs - rhs if not isinstance(statement, (LessThan, StrictLessThan)) else rhs - lhs
    if isinstance(statement, sp.Ne):
        return bool(sp.factor(gap).is_nonzero)
    strict = isinstance(statement, (StrictGreaterThan, StrictLessThan))
    for fact in given:
        if isinstance(fact, GreaterThan) and fact.lhs.is_Symbol and fact.rhs.is_number:
            gap = gap.xreplace({fact.lhs: fact.rhs + sp.Dummy(nonnegative=True)})
    forms = (sp.factor(gap), sp.expand(gap))
    return any(form.is_positive if strict else form.is_nonnegative for form in forms)


def proved(statement: Any, base: Any, given: Any = (), uses: Any = ()) -> bool:
    try:
        prove_induction(statement, n, base, list(given), prove, uses)
    except NoProof:
        return False
    return True


legendre = [
    Recurrence(Eq((kp + 1) * P(kp + 1, x), (2 * kp + 1) * x * P(kp, x) - kp * P(kp - 1, x)), kp, x),
    Recurrence(Eq(P(0, x), 1), x),
    Recurrence(Eq(P(1, x), x), x),
]
fibonacci = [Recurrence(Eq(F(k + 2), F(k + 1) + F(k)), k), Eq(F(0), 0), Eq(F(1), 1)]
symmetric = [
    Recurrence(Eq(E(k + 1, g), E(k, g) + X[k + 1] * E(k, g - 1)), k, g),
    Recurrence(Eq(E(k, k + 1), 0), k),
    Recurrence(Eq(E(k, -1), 0), k),
    Eq(E(0, 0), 1),
]


def dP(index: Any) -> Any:
    return Derivative(P(index, x), x)


def two_derivatives(index: Any, factor: int = 1) -> Any:
    first = Eq(dP(index + 1) - dP(index - 1), (2 * index + 1) * P(index, x))
    return And(first, Eq(x * dP(index) - dP(index - 1), factor * index * P(index, x)))


two = [Recurrence(part, kp, x) for part in two_derivatives(kp).args]


def legs(index: Any, factor: Any = 0, last: int = 1) -> Any:
    total = Sum((2 * g + 1) * P(g, x), (g, 0, index - last))
    return Eq((x + 1) * dP(index), (index + factor) * P(index, x) + total)


def determinant(entry: Any, size: Any) -> Any:
    return Determinant(FunctionMatrix(size, size, Lambda((i, j), entry)))


def differences(size: Any, sign: int = 1) -> Any:
    return Product(Product(sign * (X[q] - X[g]), (g, 0, q - 1)), (q, 0, size - 1))


second = 2 * sp.KroneckerDelta(i, j) - sp.KroneckerDelta(i, j + 1) - sp.KroneckerDelta(i + 1, j)
shear = sp.ImmutableMatrix([[1, 1], [0, 1]])

# statement, base, given, a wrong statement or None
PROVED = {
    "sum": (lambda n: Eq(Sum(q, (q, 1, n)), n * (n + 1) / 2), 1, [], lambda n: Eq(Sum(q, (q, 1, n)), n * (n - 1) / 2)),
    "squares": (
        lambda n: Eq(Sum(q**2, (q, 1, n)), n * (n + 1) * (2 * n + 1) / 6),
        0,
        [],
        lambda n: Eq(Sum(q**2, (q, 1, n)), n * (n + 1) * (n + 2) / 6),
    ),
    "geometric": (
        lambda n: Eq((1 - r) * Sum(r**q, (q, 0, n - 1)), 1 - r**n),
        1,
        [],
        lambda n: Eq((1 - r) * Sum(r**q, (q, 0, n)), 1 - r**n),
    ),
    "factorials": (
        lambda n: Eq(Sum(q * sp.factorial(q), (q, 1, n)), sp.factorial(n + 1) - 1),
        1,
        [],
        lambda n: Eq(Sum(q * sp.factorial(q), (q, 1, n)), sp.factorial(n + 1)),
    ),
    "harmonic squares": (
        lambda n: Sum(1 / q**2, (q, 1, n)) <= 2 - 1 / n,
        1,
        [],
        lambda n: Sum(1 / q**2, (q, 1, n)) <= sp.Rational(3, 2) - 1 / n,
    ),
    "Bernoulli": (lambda n: (1 + t) ** n >= 1 + n * t, 0, [t >= -1], lambda n: (1 + t) ** n >= 1 + (n + 1) * t),
    "powers of two": (lambda n: 2**n > n, 0, [], lambda n: 2**n > 2 * n),
    "Cassini": (
        lambda n: Eq(F(n + 1) * F(n - 1) - F(n) ** 2, (-1) ** n),
        1,
        fibonacci,
        lambda n: Eq(F(n + 1) * F(n - 1) - F(n) ** 2, -((-1) ** n)),
    ),
    "sum of Fibonacci numbers": (
        lambda n: Eq(Sum(F(q), (q, 1, n)), F(n + 2) - 1),
        1,
        fibonacci,
        lambda n: Eq(Sum(F(q), (q, 1, n)), F(n + 1)),
    ),
    "squares of Fibonacci numbers": (
        lambda n: Eq(Sum(F(q) ** 2, (q, 1, n)), F(n) * F(n + 1)),
        1,
        fibonacci,
        lambda n: Eq(Sum(F(q) ** 2, (q, 1, n)), F(n) * F(n + 2)),
    ),
    "Legendre at 1": (lambda n: Eq(P(n, 1), 1), (0, 1), legendre, lambda n: Eq(P(n, 1), n)),
    "Legendre at -1": (lambda n: Eq(P(n, -1), (-1) ** n), (0, 1), legendre, lambda n: Eq(P(n, -1), 1)),
    "derivatives of Legendre": (two_derivatives, (1, 2), legendre, lambda n: two_derivatives(n, 2)),
    "LegS": (legs, (0, 1), [*legendre, *two], lambda n: legs(n, factor=1)),
    "LegS, range": (legs, (0, 1), [*legendre, *two], lambda n: legs(n, last=0)),
    "elementary symmetric polynomials": (
        lambda n: Eq(Sum(E(n, q) * t**q, (q, 0, n)), Product(1 + X[q] * t, (q, 1, n))),
        0,
        symmetric,
        lambda n: Eq(Sum(E(n, q) * t**q, (q, 0, n)), Product(1 - X[q] * t, (q, 1, n))),
    ),
    "Vandermonde": (
        lambda n: Eq(determinant(X[i] ** j, n), differences(n)),
        1,
        [],
        lambda n: Eq(determinant(X[i] ** j, n), differences(n, -1)),
    ),
    "Vandermonde, transposed": (
        lambda n: Eq(determinant(X[j] ** i, n), differences(n)),
        1,
        [],
        lambda n: Eq(determinant(X[j] ** i, n), differences(n, -1)),
    ),
    "second differences": (
        lambda n: Eq(determinant(second, n), n + 1),
        (1, 2),
        [],
        lambda n: Eq(determinant(second, n), n + 2),
    ),
    "geometric sum of matrices": (
        lambda n: Eq(MatrixSum(A**k, (k, 0, n - 1)) * (Identity(d) - A), Identity(d) - A**n),
        1,
        [],
        lambda n: Eq(MatrixSum(A**k, (k, 0, n - 1)) * (Identity(d) + A), Identity(d) - A**n),
    ),
    "powers of similar matrices": (
        lambda n: Eq((T * D * T.I) ** n, T * D**n * T.I),
        1,
        [Q.invertible(T)],
        lambda n: Eq((T * D * T.T) ** n, T * D**n * T.T),
    ),
    "powers of a shear": (
        lambda n: Eq(sp.MatPow(shear, n), sp.ImmutableMatrix([[1, n], [0, 1]])),
        1,
        [],
        lambda n: Eq(sp.MatPow(shear, n), sp.ImmutableMatrix([[1, n + 1], [0, 1]])),
    ),
}


@pytest.mark.parametrize("name", PROVED)
def test_induction_proves_the_statement_and_not_its_near_miss(name):
    statement, base, given, wrong = PROVED[name]
    assert proved(statement, base, given)
    assert not proved(wrong, base, given)


@pytest.mark.parametrize(
    ("statement", "base", "given"),
    [
        (lambda n: (1 + t) ** n >= 1 + n * t, 1, []),  # t may lie below -1
        (lambda n: Eq(P(n, 1), 1), 0, legendre),  # the step needs two values
        (lambda n: Eq(determinant(second, n), n + 1), 1, []),
        (lambda n: Eq(Sum(E(n, q) * t**q, (q, 0, n)), Product(1 + X[q] * t, (q, 1, n))), 0, symmetric[::2]),
        (lambda n: Eq(F(n), F(0)), 0, [Recurrence(Eq(F(k + 2), F(k)), k)]),  # odd n
        (lambda n: Eq(F(n), 5), 0, [Recurrence(Eq(F(kp + 1), F(kp)), kp), Eq(F(0), 5)]),  # from 0 to 1 nothing is known
        (lambda n: Eq(F(n), 0), 0, [Eq(F(n), 0)]),  # a condition at one n
        (lambda n: Eq(dP(n), 1), 0, [Recurrence(Eq(P(k + 1, x), P(k, x)), k), Recurrence(Eq(P(0, x), x), x)]),
        (lambda n: Eq(dP(n), 0), 0, [Recurrence(Eq(P(k + 1, x), P(k, x)), k, x), Eq(P(0, x), 3)]),
        (lambda n: F(n) >= F(n) - 1, 0, []),  # an order between numbers that may be complex
    ],
)
def test_what_the_conditions_do_not_give_is_not_proved(statement, base, given):
    assert not proved(statement, base, given)


def test_recurrence_for_every_x_may_be_differentiated():
    given = [Recurrence(Eq(P(k + 1, x), P(k, x)), k, x), Recurrence(Eq(P(0, x), x), x)]
    assert proved(lambda n: Eq(dP(n), 1), 0, given)


def test_earlier_results_serve_in_the_step():
    statement, sums = PROVED["sum"][0], lambda n: Eq(Sum(q**3, (q, 1, n)), Sum(q, (q, 1, n)) ** 2)
    assert not proved(sums, 1)
    assert proved(lambda n: And(statement(n), sums(n)), 1)
    assert proved(lambda n: Eq(P(n, 1), P(n, 1) ** 2), (0, 1), uses=[Recurrence(Eq(P(k, 1), 1), k)])


def test_what_is_displayed_are_base_hypothesis_and_step():
    statement = PROVED["sum"][0]
    base, hypothesis, step = prove_induction(statement, n, 1, [], prove)
    assert (base, hypothesis, step) == (statement(sp.S.One), statement(n), statement(n + 1))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="run of integers"):
        prove_induction(PROVED["sum"][0], n, (0, 2), [], prove)
    with pytest.raises(NoProof, match="speaks of n"):
        prove_induction(PROVED["sum"][0], n, 1, [Eq(F(n), 1)], prove)
    with pytest.raises(TypeError, match="Eq"):
        Recurrence(F(k) > 1, k)


# --- rules ------------------------------------------------------------------------------------------------------------
ENTRIES = {
    "Vandermonde": X[i] ** j,
    "Vandermonde, turned": X[j] ** i,
    "rising powers": X[i] ** j * sp.factorial(j) * (i + 2),
    "exponentials": sp.exp(i * j * sp.Symbol("h", real=True)),
    "three diagonals": X[i] * sp.KroneckerDelta(i, j)
    + i * sp.KroneckerDelta(i, j + 1)
    + X[j] * sp.KroneckerDelta(i + 1, j),
    "lower triangle": sp.Piecewise((X[i] + j, j <= i), (0, True)),
}


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("name", ENTRIES)
def test_smaller_determinant_equals_the_explicit_one(name, size):
    m = sp.Symbol("m", integer=True, nonnegative=True)
    lowered = smaller(determinant(ENTRIES[name], m + 2), prove)
    if lowered is None:
        assert name in ("lower triangle", "rising powers", "exponentials")
        return
    numbers = {X[a]: sp.Integer(3 * a * a + 2) for a in range(8)}

    def value(e: Any) -> Any:
        e = e.subs(m, size - 2).replace(
            lambda node: isinstance(node, Determinant),
            lambda node: node.arg.as_explicit().det() if node.arg.shape[0] else sp.S.One,
        )
        return sp.expand(e.doit().subs(numbers))

    assert sp.simplify(value(lowered) - value(determinant(ENTRIES[name], m + 2))) == 0


def test_recurrence_displays_its_variables_and_keeps_them():
    recurrence = Recurrence(Eq(F(k + 1), 2 * F(k)), k)
    assert "for every" in sp.latex(recurrence)
    assert recurrence.subs(k, 5) == recurrence
    assert recurrence.free_symbols == set()


def test_rule_lowers_only_where_its_variable_may_be():
    (rule,) = rules([legendre[0]])
    m = sp.Symbol("m", integer=True, nonnegative=True)
    assert rule.value(P(m + 2, 1), lambda c: bool(c.is_nonzero)) is not None
    assert rule.value(P(m + 1, 1), lambda c: bool(c.is_nonzero)) is None


def test_no_index_is_captured():
    recurrence = Recurrence(Eq(F(k), Sum(X[q], (q, 0, k))), k)
    assert instances([recurrence], [F(q)]) == []
    same = Recurrence(Eq(F(k), Sum(X[q], (q, 0, k))), k)
    assert instances([same], [F(k + 1)]) == [F(k + 1) - Sum(X[q], (q, 0, k + 1))]


def empty_product(m: Any) -> Any:
    return Product(1 - d / kp, (kp, 1, m))


@pytest.mark.parametrize("attempt", range(40))
def test_what_sympy_says_of_an_empty_product_is_not_believed(attempt: int) -> None:
    """SymPy calls it nonpositive; whether an equation or an order with it is answered at once depends on chance."""
    clear_cache()
    start = instance(lambda m: And(Eq(empty_product(m), 1), empty_product(m) <= 1), n, 0)
    assert [part.args for part in start.args] == [(empty_product(0), 1)] * 2
    clear_cache()
    with pytest.raises(Refusal, match="at n = 0 false"):
        decide_induction(lambda m: empty_product(m) < 1, n, 0, [], [], 10.0)


def test_base_case_is_displayed_where_sympy_answers_it_at_once() -> None:
    base, _, _ = prove_induction(lambda m: Eq(Sum(k, (k, 0, m)), m * (m + 1) / 2), n, 0, [], plain)
    assert base == Eq(Sum(k, (k, 0, 0)), 0, evaluate=False)
    powers = lambda m: Eq(sp.BlockMatrix([[A, D]]) * A**m, sp.BlockMatrix([[A ** (m + 1), D * A**m]]))
    assert instance(lambda m: Eq(A ** (m - 1) * D, A ** (m - 1) * D), kp, 1) == sp.true
    assert instance(powers, n, 0) == powers(sp.Integer(0))


def test_a_product_without_factors_is_one_inside_a_statement() -> None:
    none = Product(1 - d / kp, (kp, n + 1, n))
    assert normalised(LessThan(x * none, Sum(k, (k, n, n - 1)), evaluate=False)) == LessThan(x, 0)
    with pytest.raises(Refusal, match="false"):
        decide(StrictLessThan(none, 1, evaluate=False), [], [], 5.0)
