"""True statements of every kind that chapters make, each beside a near miss that is false."""

from . import (
    algebra,
    calculus,
    faults,
    inductions,
    matrices,
    orders,
    reports_calculus,
    reports_values,
    shapes,
    sums,
    vectors,
)
from ._table import Pair as Pair
from ._table import Step as Step

PAIRS = [
    pair
    for part in (
        *(algebra, sums, calculus, orders, matrices, shapes, vectors, inductions),
        *(faults, reports_calculus, reports_values),
    )
    for pair in part.TABLE
]
