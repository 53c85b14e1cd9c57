"""Block matrices of symbolic shape as grids of words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy as sp

from kexue_lib.derivation._cannot import NoRule
from kexue_lib.derivation._determinants import determinant_of_words, invertible_words
from kexue_lib.derivation._letters import is_matrix
from kexue_lib.derivation._words import Words, plus, scaled, times

if TYPE_CHECKING:
    from kexue_lib.derivation._matrices import MatrixAlgebra


@dataclass(frozen=True)
class Grid:
    """Blocks with the heights of the rows and the widths of the columns."""

    heights: tuple[Any, ...]
    widths: tuple[Any, ...]
    parts: tuple[tuple[Words, ...], ...]

    def vanishes(self, algebra: "MatrixAlgebra") -> bool:
        """Whether every block is zero."""
        shaped = zip(self.heights, self.parts, strict=True)
        return all(
            algebra.is_zero(words, (height, width))
            for height, row in shaped
            for width, words in zip(self.widths, row, strict=True)
        )


def blocks(algebra: "MatrixAlgebra", expression: Any) -> Grid:
    """The grid of an expression that contains block matrices; raises NoRule."""
    _grid(algebra, expression)  # brings up the letters, whose rules the second pass uses
    algebra.rewriting.complete()
    return _grid(algebra, expression)


def _grid(algebra: "MatrixAlgebra", e: Any) -> Grid:
    if isinstance(e, sp.BlockMatrix):
        parts = tuple(tuple(algebra.words(e.blocks[i, j]) for j in range(e.blocks.cols)) for i in range(e.blocks.rows))
        return Grid(tuple(e.rowblocksizes), tuple(e.colblocksizes), parts)
    if not e.has(sp.BlockMatrix):
        return Grid((e.shape[0],), (e.shape[1],), ((algebra.words(e),),))
    if isinstance(e, sp.MatAdd):
        return _sum([_grid(algebra, part) for part in e.args])
    if isinstance(e, sp.MatMul):
        scalars = [algebra.scalar(part) for part in e.args if not is_matrix(part)]
        grids = [_grid(algebra, part) for part in e.args if is_matrix(part)]
        product = grids[0]
        for grid in grids[1:]:
            product = _product(algebra, product, grid)
        return _mapped(product, lambda words: scaled(sp.Mul(*scalars), words))
    if isinstance(e, (sp.Transpose, sp.Adjoint)):
        turned = _mapped(_grid(algebra, e.arg), algebra.transposed)
        turned = Grid(turned.widths, turned.heights, tuple(zip(*turned.parts, strict=True)))
        return turned if isinstance(e, sp.Transpose) else _mapped(turned, algebra.conjugated)
    if isinstance(e, sp.Inverse):
        return _inverse(algebra, _grid(algebra, e.arg))
    if isinstance(e, sp.MatPow) and e.exp.is_Integer and e.exp > 1:
        return _grid(algebra, sp.MatMul(*[e.base] * int(e.exp)))
    raise NoRule(type(e).__name__)


def _mapped(grid: Grid, function: Any) -> Grid:
    return Grid(grid.heights, grid.widths, tuple(tuple(function(words) for words in row) for row in grid.parts))


def _split(grid: Grid, sizes: tuple[Any, ...]) -> Grid:
    """A multiple of the identity, or zero, cut into the blocks of a partition."""
    if grid.heights == sizes or len(grid.heights) > 1 or len(grid.widths) > 1:
        return grid
    words = grid.parts[0][0]
    if grid.heights != grid.widths or set(words) > {()} or (words and () not in words):
        raise NoRule("a matrix that does not fit the blocks")
    parts = tuple(tuple(words if i == j else {} for j in range(len(sizes))) for i in range(len(sizes)))
    return Grid(sizes, sizes, parts)


def _sum(grids: list[Grid]) -> Grid:
    widest = max(grids, key=lambda grid: len(grid.heights) * len(grid.widths))
    fitted = [_split(grid, widest.heights) for grid in grids]
    if any((grid.heights, grid.widths) != (widest.heights, widest.widths) for grid in fitted):
        raise NoRule("blocks of different sizes")
    rows = zip(*(grid.parts for grid in fitted), strict=True)
    parts = tuple(tuple(plus(*same) for same in zip(*row, strict=True)) for row in rows)
    return Grid(widest.heights, widest.widths, parts)


def _product(algebra: "MatrixAlgebra", first: Grid, second: Grid) -> Grid:
    first, second = _split(first, second.heights), _split(second, first.widths)
    if first.widths != second.heights:
        raise NoRule("blocks of different sizes")
    columns = list(zip(*second.parts, strict=True))
    parts = tuple(
        tuple(
            algebra.rewriting.reduced(plus(*(times(a, b) for a, b in zip(row, column, strict=True))))
            for column in columns
        )
        for row in first.parts
    )
    return Grid(first.heights, second.widths, parts)


def _inverse(algebra: "MatrixAlgebra", grid: Grid) -> Grid:
    """Of [[A, B], [C, D]] with A known to be invertible: then so is S = D - C A^-1 B, as det = det A · det S."""
    if len(grid.heights) != 2 or grid.heights != grid.widths:
        raise NoRule("the inverse of these blocks")
    (a, b), (c, d) = grid.parts
    if not invertible_words(algebra, a):
        if not invertible_words(algebra, d):
            raise NoRule("no diagonal block is known to be invertible")
        turned = _inverse(algebra, Grid(grid.heights[::-1], grid.widths[::-1], ((d, c), (b, a))))
        (d, c), (b, a) = turned.parts
        return Grid(grid.heights, grid.widths, ((a, b), (c, d)))
    minus = sp.S.NegativeOne
    inverse = algebra.inverse(a, grid.heights[0])
    schur = plus(d, scaled(minus, times(times(c, inverse), b)))
    rest = algebra.inverse(schur, grid.heights[1])
    right, left = times(inverse, b), times(c, inverse)
    parts = (
        (plus(inverse, times(times(right, rest), left)), scaled(minus, times(right, rest))),
        (scaled(minus, times(rest, left)), rest),
    )
    return _mapped(Grid(grid.heights, grid.widths, parts), algebra.rewriting.reduced)


def block_determinant(algebra: "MatrixAlgebra", matrix: Any) -> sp.Expr | None:
    """det [[A, B], [C, D]] = det A · det(D - C A^-1 B) for an invertible A, likewise for D; None if neither is known.

    For B = 0 or C = 0 it is det A · det D.
    """
    grid = blocks(algebra, matrix)
    if grid.heights != grid.widths or len(grid.heights) > 2:
        return None
    if len(grid.heights) == 1:
        return determinant_of_words(algebra, grid.parts[0][0], grid.heights[0])
    ((a, b), (c, d)), (upper, lower) = grid.parts, grid.heights
    if not (b and c):
        return determinant_of_words(algebra, a, upper) * determinant_of_words(algebra, d, lower)
    if not invertible_words(algebra, a):
        if not invertible_words(algebra, d):
            return None
        (a, b, c, d), (upper, lower) = (d, c, b, a), (lower, upper)
    schur = plus(d, scaled(sp.S.NegativeOne, times(times(c, algebra.inverse(a, upper)), b)))
    return determinant_of_words(algebra, a, upper) * determinant_of_words(algebra, schur, lower)
