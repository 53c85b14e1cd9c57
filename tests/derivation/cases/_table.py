"""One table of pairs per field, and the letters that the statements are written in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from kexue_lib.derivation import Derivation

Step = Callable[[Derivation, str], Any]


class Pair(NamedTuple):
    """A true statement and a false one beside it, each a step that a derivation takes under some title."""

    field: str
    name: str
    true: Step
    false: Step


class Table(list):
    """The pairs of one field."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field = field

    def eq(self, name: str, lhs: Any, rhs: Any, wrong: Any, *, given: Any = (), wrong_given: Any = None) -> None:
        """lhs equals rhs (under `given`), and does not equal `wrong` (under `wrong_given`)."""
        other = given if wrong_given is None else wrong_given
        self.append(
            Pair(
                self.field,
                name,
                lambda d, title: d.equal(title, lhs, rhs, given=given),
                lambda d, title: d.equal(title, lhs, wrong, given=other),
            )
        )

    def says(self, name: str, true: Any, false: Any, *, given: Any = (), wrong_given: Any = None) -> None:
        """`true` holds (under `given`), `false` does not (under `wrong_given`)."""
        other = given if wrong_given is None else wrong_given
        self.append(
            Pair(
                self.field,
                name,
                lambda d, title: d.holds(title, true, given=given),
                lambda d, title: d.holds(title, false, given=other),
            )
        )

    def equations(self, name: str, true: Any, false: Any, *, given: Any = (), wrong_given: Any = None) -> None:
        """The two sides in `true` are equal (under `given`), those in `false` are not (under `wrong_given`)."""
        other = given if wrong_given is None else wrong_given
        self.append(
            Pair(
                self.field,
                name,
                lambda d, title: d.equal(title, *true, given=given),
                lambda d, title: d.equal(title, *false, given=other),
            )
        )

    def induction(
        self,
        name: str,
        statement: Callable[[Any], Any],
        wrong: Callable[[Any], Any],
        n: sp.Symbol,
        *,
        base: Any = 1,
        given: Any = (),
    ) -> None:
        """`statement` holds for every n from `base` on, by induction; `wrong` does not."""
        self.append(
            Pair(
                self.field,
                name,
                lambda d, title: d.induction(title, statement, n, base=base, given=given),
                lambda d, title: d.induction(title, wrong, n, base=base, given=given),
            )
        )


x, y, z, u, v, w, lam = sp.symbols("x y z u v w lambda", real=True)
x1, x2, x3, x4 = xs = sp.symbols("x1:5", real=True)
a, b, c, s, t = sp.symbols("a b c s t", positive=True)
a1, a2, a3, b1, b2, b3 = sp.symbols("a1:4 b1:4", real=True)
p, q, r = sp.symbols("p q r", positive=True)
i, j, k, l = sp.symbols("i j k l", integer=True)
n, m = sp.symbols("n m", integer=True, positive=True)
n0 = sp.Symbol("n", integer=True, nonnegative=True)
zc, wc = sp.symbols("z w")
f, g = sp.Function("f", real=True), sp.Function("g", real=True)
X, Y = sp.IndexedBase("X", real=True), sp.IndexedBase("Y", real=True)
P, R = sp.IndexedBase("P", positive=True), sp.IndexedBase("R", positive=True)
oo = sp.oo

Z = sum(sp.exp(entry) for entry in xs)
soft = [sp.exp(entry) / Z for entry in xs]
sigmoid = 1 / (1 + sp.exp(-x))
root = sp.sqrt(x**2 + b)
