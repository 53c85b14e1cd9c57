"""Matrices of balls: matrix symbols, products, inverses, determinants and blocks, entry by entry.

A matrix compiles to a closure `environment -> list of rows of balls`; its size is
the size of the matrices at the point. Determinants and inverses eliminate with pivots that are not zero, so that a
matrix of exact rationals stays exact and a singular one has no inverse.
"""

from fractions import Fraction
from functools import lru_cache

import sympy as sp

from kexue_lib.derivation._balls import ONE, ZERO, Ball, add, div, inverse, lower, mul, neg, sub, with_radius
from kexue_lib.derivation._compile import compiled, integer, rule
from kexue_lib.derivation._matrices import MatrixSum
from kexue_lib.derivation._radii import NoValue, Straddle, Undefined, mpf_cmp_key, power_of_two
from kexue_lib.derivation._rounding import conjugate

_RULES = {}


def _matrix_rule(*kinds):
    def register(function):
        for kind in kinds:
            _RULES[kind] = function
        return function

    return register


@lru_cache(maxsize=2048)
def compiled_matrix(expression):
    """The closure of a matrix expression: environment -> rows of balls."""
    for kind in type(expression).__mro__:
        if kind in _RULES:
            return _RULES[kind](expression)
    raise NoValue(f"cannot evaluate {type(expression).__name__}")


def is_matrix(expression):
    """Whether an expression is a matrix."""
    return bool(getattr(expression, "is_Matrix", False)) or isinstance(expression, (sp.MatrixExpr, sp.MatrixBase))


# --- linear algebra over balls ---


def product(x, y, bits):
    """The matrix product."""
    if len(x[0]) != len(y):
        raise Undefined("matrices of sizes that do not match")
    columns = list(zip(*y))
    return [[_dot(row, column, bits) for column in columns] for row in x]


def _dot(row, column, bits):
    total = ZERO
    for a, b in zip(row, column):
        total = add(total, mul(a, b, bits), bits)
    return total


def transposed(x):
    """The transpose."""
    return [list(column) for column in zip(*x)]


def identity(n):
    """The identity."""
    return [[ONE if i == j else ZERO for j in range(n)] for i in range(n)]


def _pivot(rows, column):
    """The row from the diagonal on whose entry in the column is farthest from zero; None if all are exactly zero."""
    best, size = None, None
    for i in range(column, len(rows)):
        entry = rows[i][column]
        if entry.a is not None and not (entry.a or entry.b):
            continue
        least = mpf_cmp_key(lower(entry))
        if best is None or least > size:
            best, size = i, least
    if size is not None and size[0] == -(10**30):
        raise Straddle(0)
    return best


def determinant(x, bits):
    """The determinant by elimination."""
    rows, value = [list(row) for row in x], ONE
    if any(len(row) != len(rows) for row in rows):
        raise Undefined("the determinant of a matrix that is not square")
    if any(entry.a is None for row in rows for entry in row) and len(rows) <= 5:
        return _by_minors(rows, bits)
    for k in range(len(rows)):
        place = _pivot(rows, k)
        if place is None:
            return ZERO
        if place != k:
            rows[k], rows[place], value = rows[place], rows[k], neg(value)
        value = mul(value, rows[k][k], bits)
        for i in range(k + 1, len(rows)):
            factor = div(rows[i][k], rows[k][k], bits)
            rows[i] = [sub(a, mul(factor, b, bits), bits) for a, b in zip(rows[i], rows[k])]
    return value


def _by_minors(rows, bits):
    """The determinant without division, which also encloses that of a matrix that may be singular."""
    if len(rows) == 1:
        return rows[0][0]
    total = ZERO
    for j, entry in enumerate(rows[0]):
        minor = [row[:j] + row[j + 1 :] for row in rows[1:]]
        term = mul(entry, _by_minors(minor, bits), bits)
        total = add(total, neg(term) if j % 2 else term, bits)
    return total if rows[0] else ONE


def inverted(x, bits):
    """The inverse by elimination."""
    n = len(x)
    if any(len(row) != n for row in x):
        raise Undefined("the inverse of a matrix that is not square")
    rows = [list(row) + unit for row, unit in zip(x, identity(n))]
    for k in range(n):
        place = _pivot(rows, k)
        if place is None:
            raise Undefined("the inverse of a singular matrix")
        rows[k], rows[place] = rows[place], rows[k]
        scale = inverse(rows[k][k], bits)
        rows[k] = [mul(entry, scale, bits) for entry in rows[k]]
        for i in range(n):
            if i != k:
                factor = rows[i][k]
                rows[i] = [sub(a, mul(factor, b, bits), bits) for a, b in zip(rows[i], rows[k])]
    return [row[n:] for row in rows]


def matrix_power(x, n, bits):
    """A whole power."""
    if n < 0:
        return matrix_power(inverted(x, bits), -n, bits)
    result = identity(len(x))
    while n:
        if n & 1:
            result = product(result, x, bits)
        n >>= 1
        if n:
            x = product(x, x, bits)
    return result


# --- kinds of matrices ---


@_matrix_rule(sp.MatrixBase)
def _(expression):
    rows, columns = expression.shape
    entries = [[compiled(sp.sympify(expression[i, j])) for j in range(columns)] for i in range(rows)]
    return lambda env: [[entry(env) for entry in row] for row in entries]


@_matrix_rule(sp.MatrixSymbol)
def _(expression):
    def value(env):
        if expression not in env.matrices:
            raise NoValue(f"{expression} has no value")
        return compiled_matrix(sp.ImmutableMatrix(env.matrices[expression]))(env)

    return value


@_matrix_rule(sp.MatAdd)
def _(expression):
    parts = [compiled_matrix(part) for part in expression.args]

    def value(env):
        total, *rest = [part(env) for part in parts]
        for other in rest:
            if len(other) != len(total) or len(other[0]) != len(total[0]):
                raise Undefined("matrices of sizes that do not match")
            total = [[add(a, b, env.bits) for a, b in zip(*rows)] for rows in zip(total, other)]
        return total

    return value


@_matrix_rule(MatrixSum)
def _(expression):
    term = compiled_matrix(expression.args[0])
    index, low, high = expression.args[1]
    low, high = compiled(low), compiled(high)

    def value(env):
        total = None
        for k in range(integer(low(env)), integer(high(env)) + 1):
            bound = env.bind(index, Ball.exact(k))
            try:
                part = term(env)
            finally:
                env.release(bound)
            total = part if total is None else [[add(a, b, env.bits) for a, b in zip(*r)] for r in zip(total, part)]
        if total is None:
            raise NoValue("an empty sum of matrices")
        return total

    return value


@_matrix_rule(sp.Derivative)
def _(expression):
    """The derivative of a scalar by a matrix, entry by entry, by central differences: seen, not proven."""
    if len(expression.variables) != 1 or not isinstance(expression.variables[0], sp.MatrixSymbol):
        raise NoValue("cannot evaluate this derivative")
    function, matrix = compiled(expression.expr), expression.variables[0]

    def value(env):
        at, bits = env.matrices[matrix], env.bits
        step = sp.Rational(1, 2 ** (bits // 3))

        def moved(i, j, side):
            unit = sp.Matrix(*at.shape, lambda k, m: side * step if (k, m) == (i, j) else 0)
            inner = env.at(bits)
            inner.matrices = env.matrices | {matrix: sp.ImmutableMatrix(at + unit)}
            return function(inner)

        def slope(i, j):
            change = div(sub(moved(i, j, 1), moved(i, j, -1), bits), Ball.exact(Fraction(2) / 2 ** (bits // 3)), bits)
            return with_radius(change, power_of_two(-(bits // 2)), bits)

        return [[slope(i, j) for j in range(at.shape[1])] for i in range(at.shape[0])]

    return value


@_matrix_rule(sp.MatMul)
def _(expression):
    parts = [(is_matrix(part), compiled_matrix(part) if is_matrix(part) else compiled(part))
             for part in expression.args]  # fmt: skip

    def value(env):
        total, factor = None, ONE
        for matrix, part in parts:
            if not matrix:
                factor = mul(factor, part(env), env.bits)
            else:
                total = part(env) if total is None else product(total, part(env), env.bits)
        assert total is not None  # a product of matrices holds one
        return [[mul(factor, entry, env.bits) for entry in row] for row in total]

    return value


@_matrix_rule(sp.Transpose)
def _(expression):
    part = compiled_matrix(expression.arg)
    return lambda env: transposed(part(env))


@_matrix_rule(sp.Adjoint)
def _(expression):
    part = compiled_matrix(expression.arg)
    return lambda env: [[conjugate(entry, env.bits) for entry in row] for row in transposed(part(env))]


@_matrix_rule(sp.MatPow)
def _(expression):
    base, exponent = compiled_matrix(expression.base), compiled(expression.exp)

    def value(env):
        power = integer(exponent(env))
        matrix = base(env)
        try:
            return matrix_power(matrix, power, env.bits)
        except Straddle:
            raise NoValue("perhaps a singular matrix") from None

    return value


@_matrix_rule(sp.Identity)
def _(expression):
    size = compiled(expression.shape[0])
    return lambda env: identity(integer(size(env)))


def _filled(ball):
    def kind(expression):
        rows, columns = (compiled(sp.sympify(size)) for size in expression.shape)
        return lambda env: [[ball] * integer(columns(env)) for _ in range(integer(rows(env)))]

    return kind


_RULES[sp.ZeroMatrix] = _filled(ZERO)
_RULES[sp.OneMatrix] = _filled(ONE)


@_matrix_rule(sp.HadamardProduct)
def _(expression):
    parts = [compiled_matrix(part) for part in expression.args]

    def value(env):
        total, *rest = [part(env) for part in parts]
        for other in rest:
            total = [[mul(a, b, env.bits) for a, b in zip(*rows)] for rows in zip(total, other)]
        return total

    return value


@_matrix_rule(sp.KroneckerProduct)
def _(expression):
    parts = [compiled_matrix(part) for part in expression.args]

    def value(env):
        total, *rest = [part(env) for part in parts]
        for other in rest:
            total = [[mul(a, b, env.bits) for a in row for b in second] for row in total for second in other]
        return total

    return value


@_matrix_rule(sp.FunctionMatrix)
def _(expression):
    rows, columns = (compiled(sp.sympify(size)) for size in expression.shape)
    function = expression.lamda
    body, names = compiled(function.expr), function.variables

    def value(env):
        def entry(i, j):
            bound = [env.bind(name, Ball.exact(k)) for name, k in zip(names, (i, j))]
            try:
                return body(env)
            finally:
                for one in reversed(bound):
                    env.release(one)

        return [[entry(i, j) for j in range(integer(columns(env)))] for i in range(integer(rows(env)))]

    return value


@_matrix_rule(sp.matrices.expressions.diagonal.DiagMatrix)
def _(expression):
    part = compiled_matrix(expression.args[0])

    def value(env):
        entries = [entry for row in part(env) for entry in row]
        return [[entry if i == j else ZERO for j in range(len(entries))] for i, entry in enumerate(entries)]

    return value


@_matrix_rule(sp.matrices.expressions.diagonal.DiagonalMatrix)
def _(expression):
    part = compiled_matrix(expression.args[0])
    return lambda env: [[e if i == j else ZERO for j, e in enumerate(row)] for i, row in enumerate(part(env))]


@_matrix_rule(sp.BlockMatrix)
def _(expression):
    blocks = expression.blocks
    parts = [[compiled_matrix(blocks[i, j]) for j in range(blocks.shape[1])] for i in range(blocks.shape[0])]

    def value(env):
        rows = []
        for line in parts:
            rows += [[e for piece in pieces for e in piece] for pieces in zip(*(part(env) for part in line))]
        return rows

    return value


@_matrix_rule(sp.BlockDiagMatrix)
def _(expression):
    parts = [compiled_matrix(part) for part in expression.args]

    def value(env):
        matrices = [part(env) for part in parts]
        width, left, rows = sum(len(matrix[0]) for matrix in matrices), 0, []
        for matrix in matrices:
            rows += [[ZERO] * left + list(row) + [ZERO] * (width - left - len(row)) for row in matrix]
            left += len(matrix[0])
        return rows

    return value


# --- numbers made of matrices ---


@rule(sp.MatrixExpr, sp.MatrixBase)
def _(expression):
    raise NoValue("a matrix where a number is needed")


@rule(sp.Trace)
def _(expression):
    part = compiled_matrix(expression.arg)

    def value(env):
        total = ZERO
        for i, row in enumerate(part(env)):
            total = add(total, row[i], env.bits)
        return total

    return value


@rule(sp.Determinant)
def _(expression):
    part = compiled_matrix(expression.arg)

    def value(env):
        try:
            return determinant(part(env), env.bits)
        except Straddle:
            raise NoValue("perhaps a singular matrix") from None

    return value


@rule(sp.matrices.expressions.matexpr.MatrixElement)
def _(expression):
    part, *indices = compiled_matrix(expression.args[0]), *(compiled(index) for index in expression.args[1:])

    def value(env):
        i, j = (integer(index(env)) for index in indices)
        rows = part(env)
        if not (0 <= i < len(rows) and 0 <= j < len(rows[0])):
            raise Undefined("an entry outside of the matrix")
        return rows[i][j]

    return value
