"""Symbols that do not commute, as square matrices of one unknown size.

Sound because a polynomial identity between symbols that nothing is known of holds exactly if it holds for matrices of
every size, and matrices are what the numbers and the proofs know how to treat.
"""

from typing import Any

import sympy as sp


def as_matrices(statement: Any) -> Any:
    """The statement with symbols that do not commute as matrices; itself where there are none.

    Raises ValueError for what is no equation between polynomials in them.
    """
    free = {s for s in statement.free_symbols if isinstance(s, sp.Symbol) and s.is_commutative is False}
    if not free or statement.has(sp.MatrixSymbol):
        return statement
    if not isinstance(statement, (sp.Eq, sp.Ne)):
        raise ValueError(f"statement: got {statement}, expected an equation of symbols that do not commute")
    size = sp.Dummy("n", integer=True, positive=True)
    return statement.func(*(_matrix(side, size) for side in statement.args), evaluate=False)


def _matrix(e: Any, size: sp.Symbol) -> Any:
    if e.is_commutative:
        return e * sp.Identity(size) if e != 0 else sp.ZeroMatrix(size, size)
    if isinstance(e, sp.Symbol):
        return sp.MatrixSymbol(e.name, size, size)
    if isinstance(e, sp.Add):
        return sp.MatAdd(*(_matrix(term, size) for term in e.args))
    if isinstance(e, sp.Mul):
        scalars, others = e.args_cnc()
        return sp.MatMul(sp.Mul(*scalars), *(_matrix(factor, size) for factor in others))
    if isinstance(e, sp.Pow) and e.exp.is_Integer:
        return sp.MatPow(_matrix(e.base, size), e.exp)
    raise ValueError(f"statement: got {e}, expected polynomials in symbols that do not commute")
