"""Identities between matrix expressions of symbolic shape, proved for every size."""

from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy.matrices.exceptions import ShapeError
from sympy.matrices.expressions.matexpr import MatrixElement

from kexue_lib.derivation import _matrix_calculus
from kexue_lib.derivation._blocks import block_determinant, blocks
from kexue_lib.derivation._cannot import Cannot, NoRule
from kexue_lib.derivation._determinants import determinant_of_words
from kexue_lib.derivation._letters import ONE, Prover, cannot_prove, is_matrix
from kexue_lib.derivation._scalars import Scalars
from kexue_lib.derivation._words import Letter, TooManySteps, Words, order, plus, scaled, settled, times

_CONCRETE = 64  # entries of an explicit matrix that are compared one by one
_ENTRYWISE = (sp.HadamardProduct, sp.FunctionMatrix, sp.DiagMatrix)
_SUMS = 4  # inverted sums that a gap is multiplied by
_CANNOT = (Cannot, TooManySteps, sp.PolynomialError, ShapeError)


class MatrixSum(sp.MatrixExpr):
    """A sum of matrices, `MatrixSum(A**k, (k, 0, n - 1))`: SymPy's Sum cannot be multiplied by a matrix.

    >>> A, k = sp.MatrixSymbol("A", 2, 2), sp.Symbol("k", integer=True, nonnegative=True)
    >>> MatrixSum(A**k, (k, 0, 2)).doit()
    I + A**2 + A
    """

    def __new__(cls, summand: Any, limits: Any) -> "MatrixSum":
        return super().__new__(cls, sp.sympify(summand), sp.Tuple(*limits))

    @property
    def shape(self) -> Any:
        """The summand's shape."""
        return self.args[0].shape

    @property
    def bound_symbols(self) -> list[Any]:
        """The index of summation."""
        return [self.args[1][0]]

    @property
    def free_symbols(self) -> set[Any]:
        """Every symbol but the index of summation."""
        index, low, high = self.args[1]
        return (self.args[0].free_symbols - {index}) | low.free_symbols | high.free_symbols

    def _entry(self, i: Any, j: Any, **kwargs: Any) -> Any:
        return sp.Sum(self.args[0][i, j], self.args[1])

    def _latex(self, printer: Any) -> str:
        index, low, high = (printer._print(part) for part in self.args[1])
        return rf"\sum_{{{index}={low}}}^{{{high}}} {printer.parenthesize(self.args[0], 40)}"

    def doit(self, **hints: Any) -> Any:
        """The terms, where their number is one."""
        index, low, high = self.args[1]
        if not (low.is_Integer and high.is_Integer):
            return self
        terms = (self.args[0].subs(index, k).doit(**hints) for k in range(int(low), int(high) + 1))
        return sp.MatAdd(sp.ZeroMatrix(*self.shape), *terms).doit()


class MatrixAlgebra(Scalars):
    """Translation of SymPy's matrix expressions, and of scalars that contain them."""

    def words(self, expression: Any) -> Words:
        """The polynomial of a matrix expression; raises NoRule for what it has no letter for."""
        return self.rewriting.reduced(self._words(expression))

    def _words(self, e: Any) -> Words:
        if isinstance(e, sp.MatrixSymbol):
            return {(self.letter(e),): sp.S.One}
        if isinstance(e, sp.MatAdd):
            return plus(*(self._words(part) for part in e.args))
        if isinstance(e, sp.MatMul):
            product = ONE
            for part in e.args:
                product = times(product, self._words(part) if is_matrix(part) else {(): self.scalar(part)})
            return product
        if isinstance(e, (sp.Transpose, sp.Adjoint)):
            words = self.transposed(self._words(e.arg))
            return self.conjugated(words) if isinstance(e, sp.Adjoint) else words
        if isinstance(e, (sp.Inverse, sp.MatPow)):
            return self.power(self._words(e.base), sp.expand(e.exp), e.shape[0])
        if isinstance(e, sp.Identity):
            return ONE
        if isinstance(e, sp.ZeroMatrix):
            return {}
        return self._other_words(e)

    def _other_words(self, e: Any) -> Words:
        if isinstance(e, sp.OneMatrix):
            column, row = self.ones(e.shape[0]), self.ones(e.shape[1]).turned()
            return {tuple(x for x, size in ((column, e.shape[0]), (row, e.shape[1])) if size != 1): sp.S.One}
        if isinstance(e, MatrixSum):
            return self._sum(e)
        if isinstance(e, sp.Derivative):
            return _matrix_calculus.derivative_by_matrix(self, e)
        if isinstance(e, sp.Sum) and len(e.limits) == 1:
            return self._sum(MatrixSum(e.function, e.limits[0]))
        if isinstance(e, (sp.HadamardProduct, sp.DiagMatrix, sp.FunctionMatrix)):
            return {(self.letter(e),): sp.S.One}
        if is_matrix(e) and e.shape == (1, 1):
            return {(): self.scalar(e[0, 0])}
        raise NoRule(type(e).__name__)

    def _sum(self, e: Any) -> Words:
        """Σ of matrices: linear, so that the words and factors free of the index are drawn out on both sides."""
        name, low, high = e.args[1]
        index = sp.Symbol("index", **name.assumptions0)
        parts = []
        for word, coefficient in self._words(e.args[0].xreplace({name: index})).items():
            if any(self.mentions(atom, {index}) for atom in coefficient.atoms(sp.Dummy)):
                raise NoRule("a sum over entries of a matrix")
            outside, inside = coefficient.as_independent(index, as_Add=False)
            bound = [at for at, letter in enumerate(word) if self.mentions(letter, {index})]
            if not bound:
                total = sp.Sum(inside, (index, low, high)) if inside.has(index) else inside * (high - low + 1)
                parts.append({word: outside * total})
                continue
            first, last = bound[0], bound[-1] + 1
            core = word[first:last]
            rows, cols = core[0].rows, core[-1].cols
            summand = self.expression({core: inside}, rows, cols)
            letter = Letter(MatrixSum(summand, (index, low, high)), rows, cols)
            parts.append({(*word[:first], letter, *word[last:]): outside})
        return plus(*parts)

    def scalar(self, e: Any) -> sp.Expr:
        """A scalar as an expression in commuting atoms; raises NoRule."""
        e = sp.sympify(e)
        if not e.has(sp.MatrixExpr, sp.MatrixSymbol):
            return e.replace(sp.Sum, _under_one_name)
        if isinstance(e, sp.Trace):
            return self.trace(self.words(e.arg), e.arg.shape[0])
        if isinstance(e, sp.Determinant):
            return self._determinant(e.arg)
        if isinstance(e, MatrixElement):
            return self.element(self.words(e.parent), e.parent.shape, e.i, e.j)
        if isinstance(e, sp.Sum):
            return self.summed(*self.scalar_body(e))
        if isinstance(e, sp.conjugate):
            return self._conjugated_scalar(self.scalar(e.args[0]))
        if isinstance(e, sp.Derivative):
            return _matrix_calculus.derivative(self, e)
        if isinstance(e, (sp.Add, sp.Mul, sp.Pow, sp.Function)):
            return e.func(*(self.scalar(part) for part in e.args))
        raise NoRule(type(e).__name__)

    def _determinant(self, matrix: Any) -> sp.Expr:
        if not matrix.has(sp.BlockMatrix):
            return determinant_of_words(self, self.words(matrix), matrix.shape[0])
        value = block_determinant(self, matrix)
        if value is None:
            raise NoRule("the determinant of these blocks")
        return value

    def scalar_body(self, e: sp.Sum) -> tuple[sp.Expr, list[Any]]:
        """The summand in atoms, and the limits from the inside out under names of their own."""
        names = {index: sp.Dummy(index.name, integer=True) for index, *_ in e.limits}
        limits = [(names[index], low, high) for index, low, high in e.limits]
        if any(set(names) & (low.free_symbols | high.free_symbols) for _, low, high in limits):
            raise NoRule("a range that depends on another index")
        self.ranges.update({index: (low, high) for index, low, high in limits})
        return self.scalar(e.function.xreplace(names)), limits

    def is_zero(self, words: Words, shape: tuple[Any, Any]) -> bool:
        """Zero as it stands, or after products with inverted sums, which are invertible and so do not change that."""
        sums = [(base, self.composite[base]) for base in sorted(self.composite, key=sp.default_sort_key)][:_SUMS]
        for left in (ONE, *(total for base, total in sums if base.shape[0] == shape[0])):
            for right in (ONE, *(total for base, total in sums if base.shape[0] == shape[1])):
                product = self.rewriting.reduced(times(times(left, words), right))
                if all(self.vanishes(coefficient) for coefficient in product.values()):
                    return True
        return False

    def vanishes(self, scalar: sp.Expr) -> bool:
        """Whether a scalar in atoms is zero, the atoms being free."""
        scalar = settled(self.eliminated(settled(scalar)))
        return scalar == 0 or bool(self.prove(sp.Eq(scalar, 0), self.given))

    def expression(self, words: Words, rows: Any, cols: Any) -> Any:
        """The matrix expression of a polynomial of that shape."""
        terms = [self._product(word, words[word], rows) for word in sorted(words, key=order)]
        return sp.MatAdd(*terms) if len(terms) > 1 else terms[0] if terms else sp.ZeroMatrix(rows, cols)

    def _product(self, word: Any, coefficient: sp.Expr, rows: Any) -> Any:
        factors = [_written(letter) for letter in word] or [sp.Identity(rows)]
        if coefficient == 1 and len(factors) == 1:
            return factors[0]
        return sp.MatMul(*([] if coefficient == 1 else [coefficient]), *factors)

    def spelled(self, e: Any) -> Any:
        """An expression with its atoms written out again."""
        while found := {atom for atom in e.atoms(sp.Dummy) if atom in self.meaning}:
            e = e.xreplace({atom: self._spelled_atom(*self.meaning[atom]) for atom in found})
        return e

    def _spelled_atom(self, kind: str, content: Any) -> Any:
        if kind == "det":
            return sp.Determinant(content)
        if kind == "sum":
            raise NoRule("a sum over entries in an answer")
        return sp.Trace(sp.MatMul(*(_written(letter) for letter in content)))


def _under_one_name(body: Any, *limits: Any) -> sp.Sum:
    """A sum of scalars under one name of its index, so that equal sums are seen to be equal."""
    index, low, high = limits[0]
    name = sp.Symbol("index", **index.assumptions0)
    if len(limits) > 1 or body.has(sp.Sum, sp.Product, sp.Integral, sp.Lambda, name):
        return sp.Sum(body, *limits)
    return sp.Sum(body.xreplace({index: name}), (name, low, high))


def _written(letter: Letter) -> Any:
    matrix = letter.base
    if letter.inverted:
        matrix = sp.Inverse(matrix)
    if letter.conjugated:
        matrix = sp.Adjoint(matrix) if letter.transposed else sp.Adjoint(sp.Transpose(matrix))
    elif letter.transposed:
        matrix = sp.Transpose(matrix)
    return matrix


def matrix_vanishes(gap: Any, given: Sequence[Any] = (), prove: Prover = cannot_prove) -> bool:
    """Whether a matrix is zero for every size and every matrix that `given` allows, its inverses being defined."""
    return matrices_equal(gap, sp.ZeroMatrix(*shape(gap)), given, prove)


def matrices_equal(lhs: Any, rhs: Any, given: Sequence[Any] = (), prove: Prover = cannot_prove) -> bool:
    """Whether two matrices are equal for every size and every matrix that `given` allows, their inverses being defined.

    A side may be a derivative by a matrix or a Sum of matrices, which SymPy does not subtract.
    """
    if not (is_matrix(lhs) and is_matrix(rhs)):
        return False
    size = shape(lhs)
    if any(sp.expand(a - b) != 0 for a, b in zip(size, shape(rhs), strict=True)):
        return False
    try:
        algebra = MatrixAlgebra(given, prove)
        if lhs.has(sp.BlockMatrix) or rhs.has(sp.BlockMatrix):
            algebra.learn()
            return blocks(algebra, lhs - rhs).vanishes(algebra)
        algebra.learn(lhs, rhs)
        gap = plus(algebra.words(lhs), scaled(sp.S.NegativeOne, algebra.words(rhs)))
        if algebra.is_zero(gap, size):
            return True
    except _CANNOT:
        pass
    if _explicit_equal(lhs, rhs, given, prove):
        return True
    return _has_entries(lhs, rhs) and _equal_by_entries(lhs, rhs, given, prove)


def shape(e: Any) -> tuple[Any, Any]:
    """Rows and columns of what stands for a matrix."""
    if isinstance(e, sp.Derivative):
        return e.variables[0].shape
    return shape(e.function) if isinstance(e, sp.Sum) else tuple(sp.sympify(side) for side in e.shape)


def _has_entries(*sides: Any) -> bool:
    """Whether entries say more than words do: for matrices defined by their entries, where no inverse hides them."""
    return any(side.has(*_ENTRYWISE) for side in sides) and not any(side.has(sp.Inverse) for side in sides)


def _explicit_equal(lhs: Any, rhs: Any, given: Sequence[Any], prove: Prover) -> bool:
    """Matrices of a given small size, entry by entry."""
    size = shape(lhs)
    if not all(side.is_Integer for side in size) or size[0] * size[1] > _CONCRETE or lhs.has(sp.Derivative):
        return False
    try:
        entries = list(sp.ImmutableMatrix((lhs - rhs).as_explicit()))
    except (Cannot, ValueError, TypeError, AttributeError):
        return False
    return all(settled(entry) == 0 or prove(sp.Eq(entry, 0), given) for entry in entries)


def _equal_by_entries(lhs: Any, rhs: Any, given: Sequence[Any], prove: Prover) -> bool:
    """Equal because the entries (i, j) are, for every i and j in range."""
    (rows, cols), names = shape(lhs), ("i", "j")
    i, j = (sp.Dummy(name, integer=True, nonnegative=True) for name in names)
    return scalar_vanishes(lhs[i, j] - rhs[i, j], [*given, i <= rows - 1, j <= cols - 1], prove)


def scalar_vanishes(gap: Any, given: Sequence[Any] = (), prove: Prover = cannot_prove) -> bool:
    """Whether a scalar made of traces, determinants and entries is zero for every size and every matrix allowed."""
    gap = sp.sympify(gap)
    by_entries = gap.replace(sp.Trace, _trace_by_entries) if _has_entries(gap) else gap
    for form in dict.fromkeys((gap, by_entries)):
        try:
            algebra = MatrixAlgebra(given, prove)
            algebra.learn(form)
            if algebra.vanishes(algebra.scalar(form)):
                return True
        except _CANNOT:
            continue
    return False


def scalars_in_atoms(
    expressions: Sequence[Any], given: Sequence[Any] = (), prove: Prover = cannot_prove
) -> list[sp.Expr] | None:
    """Scalars of matrices as expressions in symbols whose signs are assumptions, None where a rule is missing.

    Equal scalars become the same symbol, tr(A'A) and x'x of real matrices nonnegative ones, the determinant of a
    positive definite matrix a positive one: what an order between scalars of matrices is decided by.
    """
    try:
        algebra = MatrixAlgebra(given, prove)
        algebra.learn(*expressions)
        return [settled(algebra.eliminated(settled(algebra.scalar(e)))) for e in expressions]
    except _CANNOT:
        return None


def _trace_by_entries(matrix: Any) -> sp.Expr:
    index = sp.Dummy("k", integer=True)
    return sp.Sum(matrix[index, index], (index, 0, matrix.shape[0] - 1))


def matrix_derivative(expression: Any, matrix: sp.MatrixSymbol, given: Sequence[Any] = ()) -> Any:
    """The matrix of ∂f/∂X[i, j] of a scalar f of the matrix X, whose entries are free of each other.

    Raises NoRule where no rule fits.

    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> A, X = sp.MatrixSymbol("A", n, n), sp.MatrixSymbol("X", n, n)
    >>> matrix_derivative(sp.Trace(A * X), X)
    A.T
    """
    algebra = MatrixAlgebra(given)
    algebra.learn(expression)
    words = algebra.rewriting.reduced(_matrix_calculus.gradient(algebra, algebra.scalar(expression), matrix))
    return algebra.spelled(algebra.expression(words, *matrix.shape)).doit()
