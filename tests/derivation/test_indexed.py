"""Sums and products of symbolic length: identities proved for every size, each beside a near miss that is not."""

import random

import pytest
import sympy as sp
from sympy import Abs, Derivative, Eq, KroneckerDelta, Mod, Ne, Product, Rational, Sum, binomial, cos, exp, log, pi, sin

from kexue_lib.derivation._indexed import ForEvery, entry_derivative, normal_form, vanishes
from kexue_lib.derivation._indexed_orders import nonnegative

n, m, d = sp.symbols("n m d", integer=True, positive=True)
size = sp.Symbol("N", integer=True)
i, j, k, l, p, q, s = sp.symbols("i j k l p q s", integer=True)
r, t, c, bound, mean, Z = sp.symbols("r t c M m Z", real=True)
x, y, theta = (sp.IndexedBase(name, real=True) for name in ("x", "y", "theta"))
a, b = (sp.IndexedBase(name, positive=True) for name in "ab")
w = sp.IndexedBase("w", nonnegative=True)
z = sp.IndexedBase("z", complex=True)

I_INSIDE = [i >= 1, i <= n]
INSIDE = [*I_INSIDE, k >= 1, k <= n]


def prove(statement, given):
    """A prover for statements without sums, as plain as can be: its true answers are right."""
    if statement in (sp.true, sp.false):
        return statement == sp.true
    gap = statement.lhs - statement.rhs
    if isinstance(statement, Eq):
        return sp.cancel(sp.together(gap)) == 0 or (gap.count_ops() < 40 and sp.simplify(gap) == 0)
    if isinstance(statement, Ne):
        return bool(sp.factor(gap).is_nonzero)
    gap = sp.factor(statement.gts - statement.lts)
    strict = isinstance(statement, (sp.StrictGreaterThan, sp.StrictLessThan))
    return bool(gap.is_positive if strict else gap.is_nonnegative)


def total(body, low=1, high=n):
    return Sum(body, (k, low, high))


def softmax(index):
    return exp(x[index]) / Sum(exp(x[j]), (j, 1, n))


log_sum_exp = log(Sum(exp(x[j]), (j, 1, n)))
generating = Product(1 + t * x[j], (j, 1, n))
lagrange = total(x[k] ** 2) * total(y[k] ** 2) - total(x[k] * y[k]) ** 2


def pairs(sign):
    return Sum((x[j] * y[k] + sign * x[k] * y[j]) ** 2, (j, 1, n), (k, 1, n)) / 2


def abel(last):
    return total(x[k] * y[k]) - Sum(x[i], (i, 1, n)) * y[n] + total(Sum(x[i], (i, 1, k)) * (y[k + 1] - y[k]), 1, last)


def cosines(sign):
    return 2 * sin(t / 2) * total(cos(k * t)) - sin((n + Rational(1, 2)) * t) + sign * sin(t / 2)


def rotary_scores(distance):
    position, other = sp.symbols("u v", real=True)

    def rotated(entries, angle):
        one, two = entries[j, 0], entries[j, 1]
        return one * cos(angle) - two * sin(angle), one * sin(angle) + two * cos(angle)

    query, key = sp.IndexedBase("query", real=True), sp.IndexedBase("key", real=True)
    moved = rotated(query, position * theta[j]), rotated(key, other * theta[j])
    fixed = (query[j, 0], query[j, 1]), rotated(key, distance(position, other) * theta[j])
    scores = [Sum(u[0] * v[0] + u[1] * v[1], (j, 1, d)) for u, v in (moved, fixed)]
    return scores[0] - scores[1]


def waves(first, second):
    return total(exp(2 * pi * sp.I * k * (first - second) / n), 0, n - 1)


def gradient_of_products(index):
    return Derivative(generating, x[index]) - t * generating / (1 + t * x[index])


def pairwise(last):
    return Sum(x[j] * x[k], (j, 1, last), (k, 1, n)) - (total(x[k]) ** 2 - total(x[k] ** 2)) / 2


def jacobian(sign):
    return Derivative(softmax(i), x[k]) - softmax(i) * (KroneckerDelta(i, k) + sign * softmax(k))


def hessian(first, second):
    expected = KroneckerDelta(first, second) * softmax(first) - softmax(first) * softmax(second)
    return Derivative(log_sum_exp, x[first], x[second]) - expected


WEIGHTS = [Eq(total(w[k]), 1)]
MEAN = total(w[k] * a[k])
LAWS = [Eq(total(a[k]), 1), Eq(total(b[k]), 1)]
BELOW = [ForEvery(x[k] <= bound, (k, 1, n))]

# gap and conditions of an identity, and of a statement beside it that is false, or not true everywhere
EQUALITIES = {
    "gradient of log-sum-exp": (
        (Derivative(log_sum_exp, x[i]) - softmax(i), I_INSIDE),
        (Derivative(log_sum_exp, x[i]) - softmax(i), [i >= 1]),
    ),
    "Jacobian of softmax": ((jacobian(-1), INSIDE), (jacobian(1), INSIDE)),
    "Hessian of log-sum-exp": ((hessian(i, k), INSIDE), (hessian(i, k), I_INSIDE)),
    "weights sum to one": ((total(softmax(k)) - 1, []), (total(softmax(k), 1, n - 1) - 1, [])),
    "weights with a named sum": (
        (total(exp(x[k]) / Z) - 1, [Eq(Z, total(exp(x[k])))]),
        (total(exp(x[k]) / Z) - 1, [Eq(Z, total(exp(x[k]), 1, n + 1))]),
    ),
    "shift of softmax": (
        (exp(x[i] + c) / total(exp(x[k] + c)) - softmax(i), []),
        (exp(x[i] + c) / total(exp(x[k] + k * c)) - softmax(i), []),
    ),
    "Lagrange": ((lagrange - pairs(-1), []), (lagrange - pairs(1), [])),
    "product of sums": (
        (Sum(x[k] * y[j], (k, 1, n), (j, 1, n)) - total(x[k]) * total(y[k]), []),
        (n**2 * Sum(x[k] ** 2, (k, 1, n), (j, 1, n)) - Sum(x[k], (k, 1, n), (j, 1, n)) ** 2, []),
    ),
    "triangular exchange": (
        (total(Sum(x[j] * y[k], (j, 1, k))) - Sum(x[j] * y[k], (k, j, n), (j, 1, n)), []),
        (total(Sum(x[j] * y[k], (j, 1, k))) - Sum(x[j] * y[k], (k, 1, j), (j, 1, n)), []),
    ),
    "variance of pairs": (
        (
            Sum((x[j] - x[k]) ** 2, (j, 1, n), (k, 1, n)) / (2 * n**2) - total(x[k] ** 2) / n + (total(x[k]) / n) ** 2,
            [],
        ),
        (Sum((x[j] - x[k]) ** 2, (j, 1, n), (k, 1, n)) / (2 * n) - total(x[k] ** 2) / n + (total(x[k]) / n) ** 2, []),
    ),
    "deviations from the mean": (
        (total((x[k] - mean) ** 2) - total(x[k] ** 2) + n * mean**2, [Eq(mean, total(x[k]) / n)]),
        (total((x[k] - mean) ** 2) - total(x[k] ** 2) + n * mean**2, []),
    ),
    "Abel": ((abel(n - 1), []), (abel(n), [])),
    "cosines": ((cosines(1), []), (cosines(-1), [])),
    "geometric": (
        (total(r**k, 0, n - 1) * (1 - r) - 1 + r**n, []),
        (total(r**k, 0, n) * (1 - r) - 1 + r**n, []),
    ),
    "geometric, divided": (
        (total(r**k, 0, n - 1) - (1 - r**n) / (1 - r), [Ne(r, 1)]),
        (total(r**k, 0, n - 1) - sp.Piecewise((2, Eq(r, 1)), ((1 - r**n) / (1 - r), True)), []),
    ),
    "arithmetic and geometric": (
        (total(k * r**k) * (1 - r) ** 2 - r * (1 - (n + 1) * r**n + n * r ** (n + 1)), []),
        (total(k * r**k) * (1 - r) ** 2 - r * (1 - n * r**n + n * r ** (n + 1)), []),
    ),
    "binomial theorem": (
        (total(binomial(n, k) * r**k * t ** (n - k), 0) - (r + t) ** n, []),
        (total(binomial(n, k) * r**k * t ** (n - k), 1) - (r + t) ** n, []),
    ),
    "mean of a binomial": (
        (total(k * binomial(n, k), 0) - n * 2 ** (n - 1), []),
        (total(k * binomial(n, k), 0, n - 1) - n * 2 ** (n - 1), []),
    ),
    "Vandermonde": (
        (total(binomial(m, k) * binomial(n, s - k), 0, s) - binomial(m + n, s), [s >= 0]),
        (total(binomial(m, k) * binomial(n, s - k), 0, s) - binomial(m + n, s), []),
    ),
    "factorials, by induction": (
        (total(k * sp.factorial(k)) - sp.factorial(n + 1) + 1, []),
        (total(k * sp.factorial(k)) - sp.factorial(n + 1) + 2, []),
    ),
    "gradient of the generating product": ((gradient_of_products(i), I_INSIDE), (gradient_of_products(i), [])),
    "recursion of the generating product": (
        (Product(1 + t * x[j], (j, 1, n + 1)) - (1 + t * x[n + 1]) * generating, []),
        (Product(1 + t * x[j], (j, 1, n + 1)) - (1 + t * x[n]) * generating, []),
    ),
    "recursion from below": (
        (generating - (1 + t * x[n]) * Product(1 + t * x[j], (j, 1, n - 1)), []),
        (generating - (1 + t * x[n]) * Product(1 + t * x[j], (j, 1, n - 2)), [n > 2]),
    ),
    "second elementary polynomial": ((pairwise(k - 1), []), (pairwise(k), [])),
    "telescoping": (
        (total((x[k] - x[k + 1]) / (2 * t)) - (x[1] - x[n + 1]) / (2 * t), []),
        (total((x[k] - x[k + 1]) / (2 * t)) - (x[1] - x[n]) / (2 * t), []),
    ),
    "partial fractions": ((total(1 / (k * (k + 1))) - n / (n + 1), []), (total(1 / (k * (k + 2))) - n / (n + 1), [])),
    "rotary scores": (
        (rotary_scores(lambda u, v: v - u), []),
        (rotary_scores(lambda u, v: v + u), []),
    ),
    "convolution": (
        (total(x[k] * y[n - k], 0) - total(y[k] * x[n - k], 0), []),
        (total(x[k] * y[n - k], 1) - total(y[k] * x[n - k], 1), []),
    ),
    "orthogonal waves": ((waves(p, q), [Ne(Mod(p - q, n), 0)]), (waves(p, q), [Ne(p, q)])),
    "waves in range": (
        (waves(p, q), [Ne(p, q), p >= 0, q >= 0, p < n, q < n]),
        (waves(p, q), [Ne(p, q), p >= 0, q >= 0, p < n, q <= n]),
    ),
    "indices of both signs": ((Sum(Abs(k), (k, -n, n)) - n * (n + 1), []), (Sum(Abs(k), (k, -n, n)), [])),
    "logarithm of a product": (
        (log(Product(a[k], (k, 1, n))) - total(log(a[k])), []),
        (log(Product(x[k], (k, 1, n))) - total(log(x[k])), []),
    ),
    "a condition between sums": (
        (total(w[k] * (x[k] - t)) - total(w[k] * x[k]) + t, WEIGHTS),
        (total(w[k] * (x[k] - t)) - total(w[k] * x[k]) + t, []),
    ),
    "pieces of the index": (
        (total(sp.Piecewise((1, Eq(k, i)), (0, True))) - 1, I_INSIDE),
        (n * (n + 1) / 2 - Sum(sp.Piecewise((k, k < 100), (n - k, True)), (k, 0, n)), []),
    ),
}

# gap, whether it is strict, and conditions
ORDERS = {
    "Cauchy-Schwarz": ((lagrange, False, []), (lagrange, True, [])),
    "Cauchy-Schwarz with norms": (
        (sp.sqrt(total(x[k] ** 2)) * sp.sqrt(total(y[k] ** 2)) - total(x[k] * y[k]), False, []),
        (sp.sqrt(total(x[k] ** 2)) * sp.sqrt(total(y[k] ** 2)) - 2 * total(x[k] * y[k]), False, []),
    ),
    "Jensen, log": (
        (log(MEAN) - total(w[k] * log(a[k])), False, WEIGHTS),
        (total(w[k] * log(a[k])) - log(MEAN), False, WEIGHTS),
    ),
    "Jensen, exp": (
        (total(w[k] * exp(x[k])) - exp(total(w[k] * x[k])), False, WEIGHTS),
        (total(y[k] * exp(x[k])) - exp(total(y[k] * x[k])), False, [Eq(total(y[k]), 1)]),
    ),
    "Jensen, square": (
        (total(w[k] * x[k] ** 2) - total(w[k] * x[k]) ** 2, False, WEIGHTS),
        (total(w[k] * x[k] ** 2) - total(w[k] * x[k]) ** 2, False, []),
    ),
    "Jensen, x log x": (
        (total(w[k] * a[k] * log(a[k])) - MEAN * log(MEAN), False, WEIGHTS),
        (total(w[k] * a[k] * log(a[k])) - MEAN * log(MEAN), False, []),
    ),
    "Jensen, 1 / x": (
        (total(w[k] / a[k]) - 1 / MEAN, False, WEIGHTS),
        (total(w[k] / x[k]) - 1 / total(w[k] * x[k]), False, WEIGHTS),
    ),
    "convex on a part of the line": (
        (total(w[k] * a[k] ** 3) - total(w[k] * a[k]) ** 3, False, WEIGHTS),
        (
            total(y[k] * x[k] ** 3) - total(y[k] * x[k]) ** 3,
            False,
            [Eq(total(y[k]), 1), ForEvery(x[k] >= 0, (k, 1, n))],
        ),
    ),
    "weighted means": (
        (MEAN - Product(a[k] ** w[k], (k, 1, n)), False, WEIGHTS),
        (Product(a[k] ** w[k], (k, 1, n)) - MEAN, False, WEIGHTS),
    ),
    "means": (
        (total(a[k]) / n - Product(a[k], (k, 1, n)) ** (1 / n), False, []),
        (total(a[k]) / (n + 1) - Product(a[k], (k, 1, n)) ** (1 / n), False, []),
    ),
    "Gibbs": ((total(a[k] * log(a[k] / b[k])), False, LAWS), (total(a[k] * log(a[k] / b[k])), False, LAWS[:1])),
    "largest entropy": (
        (log(n) + total(a[k] * log(a[k])), False, LAWS),
        (log(n - 1) + total(a[k] * log(a[k])), False, [*LAWS, n >= 2]),
    ),
    "log-sum-exp from below": ((log_sum_exp - x[i], False, I_INSIDE), (log_sum_exp - x[i], False, [i >= 1])),
    "log-sum-exp from above": (
        (bound + log(n) - log_sum_exp, False, BELOW),
        (bound + log(n) - log_sum_exp, False, [x[k] <= bound]),
    ),
    "reciprocal squares": ((2 - 1 / n - total(1 / k**2), False, []), (2 - 2 / n - total(1 / k**2), False, [])),
    "harmonic": ((total(1 / k) - log(n + 1), True, []), (5 - total(1 / k), False, [])),
    "one of the terms": ((total(a[k]) - a[i], False, I_INSIDE), (total(a[k]) - a[i], True, I_INSIDE)),
    "a weight below one": ((1 - softmax(i), True, [*I_INSIDE, n >= 2]), (1 - softmax(i), True, I_INSIDE)),
    "triangle": (
        (total(Abs(z[k])) - Abs(total(z[k])), False, []),
        (Abs(total(x[k])) - total(Abs(x[k])), False, []),
    ),
    "bounded entries": (
        (n * bound - total(x[k]), False, BELOW),
        (n * bound - total(x[k]), False, [ForEvery(x[k] <= bound, (k, 2, n))]),
    ),
    "positive terms": ((total(a[k]), True, []), (total(a[k], 1, n - 1), True, [])),
    "squares of a law": (
        (1 - total(a[k] ** 2), False, LAWS),
        (1 - total(x[k] ** 2), False, [Eq(total(x[k]), 1)]),
    ),
    "both signs": ((2 * n**2 - Sum(Abs(k), (k, -n, n)), False, []), (9 * n - Sum(Abs(k), (k, -n, n)), False, [])),
}


@pytest.mark.parametrize("name", EQUALITIES)
def test_identity_is_proved_for_every_size(name):
    gap, given = EQUALITIES[name][0]
    assert vanishes(gap, given, prove)


@pytest.mark.parametrize("name", EQUALITIES)
def test_statement_beside_an_identity_is_not_proved(name):
    gap, given = EQUALITIES[name][1]
    assert not vanishes(gap, given, prove)


@pytest.mark.parametrize("name", ORDERS)
def test_order_is_proved_for_every_size(name):
    gap, strict, given = ORDERS[name][0]
    assert nonnegative(gap, strict, given, prove)


@pytest.mark.parametrize("name", ORDERS)
def test_statement_beside_an_order_is_not_proved(name):
    gap, strict, given = ORDERS[name][1]
    assert not nonnegative(gap, strict, given, prove)


def test_normal_form_does_not_depend_on_names():
    one = Sum(x[k] * y[j] * exp(x[k] * y[j]), (k, 1, n), (j, 1, m))
    other = Sum(x[i] * y[l] * exp(x[i] * y[l]), (l, 1, m), (i, 1, n))
    assert normal_form(one) == normal_form(other)


def test_condition_on_every_index_binds_it():
    condition = BELOW[0]
    assert condition.free_symbols == {n, bound} | (x[n].free_symbols - {x[n]})
    assert "for every k" in str(condition)
    assert r"\ldots" in sp.latex(condition)


# --- against sums written out -----------------------------------------------------------------------------------------


class Undefined(Exception):
    """A term without a value."""


def value(expression, point, entry):
    """The value at a point, sums written out in Karr's convention; indices of nested sums shadow one another."""
    if isinstance(expression, sp.Indexed):
        return entry(str(expression.base), *(int(value(index, point, entry)) for index in expression.indices))
    if isinstance(expression, (sp.Sum, sp.Product)):
        return written_out(expression, list(expression.limits), point, entry)
    if expression.is_Symbol:
        return point[expression]
    if not expression.args:
        return expression
    result = expression.func(*(value(part, point, entry) for part in expression.args))
    if result.has(sp.zoo, sp.nan, sp.oo):
        raise Undefined
    return result


def written_out(holder, limits, point, entry):
    if not limits:
        return value(holder.function, point, entry)
    *inner, (index, low, high) = limits
    low, high = (int(value(end, point, entry)) for end in (low, high))
    turned = high < low - 1
    first, last = (high + 1, low - 1) if turned else (low, high)
    terms = [written_out(holder, inner, {**point, index: sp.Integer(at)}, entry) for at in range(first, last + 1)]
    if isinstance(holder, sp.Sum):
        return -sp.Add(*terms) if turned else sp.Add(*terms)
    if turned and sp.Mul(*terms) == 0:
        raise Undefined
    return 1 / sp.Mul(*terms) if turned else sp.Mul(*terms)


def random_entry(seed):
    def entry(*place):
        source = random.Random(f"{seed} {place}")
        return Rational(source.randint(1, 9) * source.choice((1, -1)), source.randint(1, 5))

    return entry


def random_body(source, bound_indices, sizes, depth=0):
    def index():
        chosen = source.choice([*bound_indices, *bound_indices, i, sizes[0]])
        return source.choice([chosen, chosen, chosen + 1, chosen - 2, source.choice(sizes) - chosen, 2 * chosen])

    kind = source.randrange(3 if depth > 2 else 13)
    if kind < 3:
        return source.choice([x, y])[index()]
    if kind < 7:
        return [r ** index(), index(), KroneckerDelta(index(), index()), 1 / (index() + 20)][kind - 3]
    if kind < 9:
        return [binomial(sizes[0], index()), Abs(index())][kind - 7]
    if kind == 12:
        return random_sum(source, bound_indices, sizes, depth + 1)
    left, right = (random_body(source, bound_indices, sizes, depth + 1) for _ in range(2))
    return left + right if kind == 9 else left * right


def random_sum(source, outer, sizes, depth=0):
    index = source.choice([name for name in (j, k, l) if name not in outer] or [j])
    low = source.choice([1, 0, -1, *sizes, -sizes[0], *outer, *(o + 1 for o in outer)])
    high = source.choice([sizes[0], sizes[0] + 1, sizes[0] - 1, sum(sizes), 2 * sizes[0], *outer, *outer])
    body = random_body(source, [*(o for o in outer if o != index), index], sizes, depth)
    return source.choice([Sum, Sum, Sum, Product])(body, (index, low, high))


@pytest.mark.parametrize("given", [[], I_INSIDE])
@pytest.mark.parametrize("sizes", [(n, m), (size, n)])
def test_normal_form_has_the_same_value_at_every_size(sizes, given):
    compared = 0
    for seed in range(60):
        source = random.Random(seed)
        expression = random_sum(source, [], sizes) * random_sum(source, [], sizes)
        reduced = normal_form(expression, given)
        for trial in range(3):
            point = {n: source.randint(1, 3), m: source.randint(1, 3), size: source.randint(-3, 3)}
            point[i] = source.randint(1, point[n]) if given else source.randint(-2, 4)
            point = {symbol: sp.Integer(number) for symbol, number in point.items()} | {
                r: source.choice([Rational(2, 3), sp.Integer(1), sp.Integer(-2)])
            }
            try:
                sides = [value(side, point, random_entry(seed + trial)) for side in (expression, reduced)]
            except Undefined:
                continue
            compared += 1
            assert sp.expand(sides[0] - sides[1]) == 0, (expression, point)
    assert compared > 60


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize(
    "function",
    [
        log(1 + total(x[k] ** 2) ** 2),
        Product(1 + t * x[j], (j, 1, n)),
        Sum(x[j] * x[k] * exp(x[j] - x[k]), (j, 1, k), (k, 1, n)),
        total(x[k] / (1 + total(x[k] ** 2))),
        total(x[k] * x[n + 1 - k]),
        total(Product(x[j] ** 2, (j, 1, k))),
    ],
)
def test_entry_derivative_equals_that_of_the_written_out_function(function, length):
    def entry(name, *place):
        return sp.Symbol(f"x_{place[0]}", real=True)

    point = {n: sp.Integer(length), t: t}
    plain = value(function, point, entry)
    for place in range(length + 2):
        for slope in (entry_derivative(function, x[i]), normal_form(Derivative(function, x[i]))):
            found = value(slope, {**point, i: sp.Integer(place)}, entry)
            assert sp.simplify(found - sp.diff(plain, sp.Symbol(f"x_{place}", real=True))) == 0


def test_kinks_are_left_to_others():
    assert entry_derivative(total(Abs(x[k])), x[i]) is None
    assert not vanishes(Derivative(Abs(x[i]), x[i]) - sp.sign(x[i]), I_INSIDE, prove)
