"""The value of an expression at a point, enclosed: the edge of the rigorous numerics.

`enclose` returns a ball that holds the value, raises `Undefined` where there is
none and `NoValue` where that stays open. It computes with more digits while the numbers call for them.
"""

from kexue_lib.derivation import _conditions, _functions, _limits, _quadrature, _series  # noqa: F401 — they register their kinds
from kexue_lib.derivation._balls import Ball
from kexue_lib.derivation._compile import Environment, compiled
from kexue_lib.derivation._enclosure_matrices import compiled_matrix
from kexue_lib.derivation._radii import NoValue, Undefined

__all__ = ["LEVELS", "Ball", "NoValue", "Undefined", "bits_of", "enclose", "enclose_matrix"]

LEVELS = (60, 300, 1500)  # digits of one try after the other


def bits_of(digits):
    """Working bits for so many decimal digits."""
    return int(digits * 3.3220) + 12


def enclose(expression, point=None, digits=60):
    """The ball that holds an expression's value at a point.

    Args:
        expression: a SymPy expression; sums, integrals, limits and derivatives are evaluated from their definition.
        point: Symbol -> exact number; IndexedBase -> object with `.at(*ints)`; Function -> Lambda;
            MatrixSymbol -> ImmutableMatrix.
        digits: decimal digits of the first try.

    Raises:
        Undefined: there is no value at this point.
        NoValue: a value could not be enclosed.
    """
    return _first_success(lambda: compiled(expression), point, digits)


def enclose_matrix(expression, point=None, digits=60):
    """The rows of balls that hold a matrix expression's entries at a point; as `enclose`."""
    return _first_success(lambda: compiled_matrix(expression), point, digits)


def _first_success(closure, point, digits):
    closure, problem = closure(), None
    for level in (digits, *(level for level in LEVELS if level > digits)):
        try:
            return closure(Environment(point, bits_of(level), exact_tests=level >= 300))
        except NoValue as error:
            problem = error
    raise problem
