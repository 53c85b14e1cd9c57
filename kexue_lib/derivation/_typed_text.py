"""A statement printed as a reader may type and change it: one name for each unknown, and nothing abbreviated."""

import keyword
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction
from sympy.matrices.expressions.matexpr import MatrixElement
from sympy.printing.precedence import precedence
from sympy.printing.str import StrPrinter

from kexue_lib.derivation._assumptions import generators


class Typed(NamedTuple):
    """The three fields that a reader fills in: symbols, conditions and statement, as text."""

    symbols: str
    given: str
    statement: str


def write(statement: Any, given: Sequence[Any] = ()) -> Typed:
    """A statement as a reader may edit it.

    >>> a, k, n = sp.IndexedBase("a", real=True), sp.Symbol("k", integer=True), sp.Symbol("n", integer=True)
    >>> write(sp.Ge(sp.Sum(a[k] ** 2, (k, 1, n)), 0), [n > 2])
    Typed(symbols='a: indexed, real\\nk, n: integer', given='n > 2', statement='Sum(a[k]^2, (k, 1, n)) >= 0')
    """
    everything = (statement, *given)
    printer = _Printer(everything)
    conditions = "\n".join(printer.top(condition) for condition in given)
    return Typed(printer.declarations(), conditions, printer.top(statement))


class _Printer(StrPrinter):
    """SymPy's text, with each unknown under a name of its own and nothing abbreviated."""

    printmethod = "_typed"  # not the classes' own abbreviations

    def __init__(self, parts: Sequence[Any]) -> None:
        super().__init__({"full_prec": False})
        self.names: dict[Any, str] = {}
        atoms = [atom for part in parts for atom in sp.preorder_traversal(part)]
        unknowns = (sp.Symbol, sp.Indexed, sp.MatrixSymbol, AppliedUndef)
        self.taken = {type(atom).__name__ for atom in atoms if not isinstance(atom, unknowns)}
        self.taken |= {str(atom) for atom in atoms if _is_constant(atom)}
        self.taken |= {"Q" for atom in atoms if isinstance(atom, sp.AppliedPredicate)}
        for atom in atoms:
            unknown = atom.func if isinstance(atom, AppliedUndef) else atom
            if isinstance(unknown, (UndefinedFunction, sp.IndexedBase, sp.MatrixSymbol)):
                self._name(unknown)
        hidden = {x.label for x in self.names if isinstance(x, sp.IndexedBase)}
        hidden |= {x.args[0] for x in self.names if isinstance(x, sp.MatrixSymbol)}
        for atom in atoms:
            if isinstance(atom, sp.Symbol) and atom not in hidden:
                self._name(atom)

    def _name(self, unknown: Any) -> None:
        if unknown in self.names:
            return
        plain = unknown.__name__ if isinstance(unknown, UndefinedFunction) else str(getattr(unknown, "name", unknown))
        stem = "lambda_" if plain == "lambda" else re.sub(r"\W+", "_", plain).strip("_") or "w"
        if not stem.isidentifier() or keyword.iskeyword(stem):
            stem = f"{stem}_" if stem.isidentifier() else f"w_{stem}"
        name, count = stem, 1
        while name in self.taken or name in self.names.values():
            count += 1
            name = f"{stem}_{count}"
        self.names[unknown] = name

    def declarations(self) -> str:
        """One line for the unknowns of each kind."""
        groups: dict[str, list[str]] = {}
        in_order = sorted(self.names.items(), key=lambda pair: (isinstance(pair[0], sp.MatrixSymbol), pair[1]))
        for unknown, name in in_order:
            groups.setdefault(self._kind(unknown), []).append(name)
        last = lambda kind: kind.startswith("matrix")
        ordered = [kind for kind in groups if not last(kind)] + [kind for kind in groups if last(kind)]
        return "\n".join(f"{', '.join(groups[kind])}: {kind}" for kind in ordered)

    def _kind(self, unknown: Any) -> str:
        if isinstance(unknown, sp.MatrixSymbol):
            return f"matrix ({self._print(unknown.shape[0])}, {self._print(unknown.shape[1])})"
        if isinstance(unknown, UndefinedFunction):
            return ", ".join(["function", *_words(generators(unknown._kwargs or {}))])
        if isinstance(unknown, sp.IndexedBase):
            return ", ".join(["indexed", *_words(_original(unknown.label))])
        return ", ".join(_words(_original(unknown))) or "number"

    def top(self, statement: Any) -> str:
        """A statement; a relation at its top with its sign."""
        sign = {sp.Eq: "=", sp.Ne: "!=", sp.Lt: "<", sp.Le: "<=", sp.Gt: ">", sp.Ge: ">="}.get(type(statement))
        if sign is None:
            return self.doprint(statement).replace("**", "^")
        return f"{self._print(statement.lhs)} {sign} {self._print(statement.rhs)}".replace("**", "^")

    def _print_Symbol(self, e: Any) -> str:
        return self.names.get(e, e.name)

    _print_Dummy = _print_Symbol

    def _print_MatrixSymbol(self, e: Any) -> str:
        return self.names.get(e, e.name)

    def _print_IndexedBase(self, e: Any) -> str:
        return self.names.get(e, str(e.label))

    def _print_Indexed(self, e: Any) -> str:
        return f"{self._print(e.base)}[{', '.join(map(self._print, e.indices))}]"

    def _print_Function(self, e: Any) -> str:
        name = self.names.get(e.func, e.func.__name__)
        return f"{name}({', '.join(map(self._print, e.args))})"

    def _print_MatrixElement(self, e: MatrixElement) -> str:
        return f"{self.parenthesize(e.parent, 1000)}[{self._print(e.i)}, {self._print(e.j)}]"

    def _call(self, e: Any) -> str:
        return f"{type(e).__name__}({', '.join(map(self._print, e.args))})"

    _print_Identity = _print_ZeroMatrix = _print_OneMatrix = _print_DiagMatrix = _print_FunctionMatrix = _call
    _print_Determinant = _print_Trace = _print_Transpose = _print_Subs = _print_KroneckerDelta = _call
    _print_Implies = _print_Equivalent = _print_MatrixSum = _print_ForEvery = _print_Recurrence = _call
    _print_Sum = _print_Product = _print_Integral = _call

    def _print_Derivative(self, e: sp.Derivative) -> str:
        by = [self._print(s if count == 1 else sp.Tuple(s, count)) for s, count in e.variable_count]
        return f"Derivative({', '.join([self._print(e.expr), *by])})"

    def _print_Relational(self, e: Any) -> str:
        sides = (self.parenthesize(side, precedence(e)) for side in e.args)
        return f" {e.rel_op} ".join(sides)

    def _print_Inverse(self, e: Any) -> str:
        return f"Inverse({self._print(e.arg)})"

    def _print_Equality(self, e: Any) -> str:
        return f"Eq({self._print(e.lhs)}, {self._print(e.rhs)})"

    def _print_Unequality(self, e: Any) -> str:
        return f"Ne({self._print(e.lhs)}, {self._print(e.rhs)})"

    def _print_Limit(self, e: sp.Limit) -> str:
        function, variable, end, side = e.args
        return f"Limit({self._print(function)}, {self._print(variable)}, {self._print(end)}, dir='{side}')"

    def _print_ExprCondPair(self, e: Any) -> str:
        return f"({self._print(e.expr)}, {self._print(e.cond)})"

    def _print_Piecewise(self, e: Any) -> str:
        return f"Piecewise({', '.join(map(self._print, e.args))})"

    def _print_BlockMatrix(self, e: Any) -> str:
        rows, columns = e.blockshape
        grid = [[self._print(e.blocks[i, j]) for j in range(columns)] for i in range(rows)]
        return f"BlockMatrix([{', '.join('[' + ', '.join(row) + ']' for row in grid)}])"

    def emptyPrinter(self, e: Any) -> str:
        """Any other kind, as it is constructed."""
        return self._call(e) if isinstance(e, sp.Basic) and e.args else str(e)


def _is_constant(atom: Any) -> bool:
    return isinstance(atom, (sp.NumberSymbol, sp.core.numbers.ImaginaryUnit, sp.core.numbers.Infinity))


def _original(symbol: Any) -> dict[str, Any]:
    """The assumptions that a symbol was made with."""
    return dict(symbol._assumptions_orig)


def _words(assumptions: dict[str, Any]) -> Iterable[str]:
    told = {k: v for k, v in assumptions.items() if v is not None and not (k == "commutative" and v)}
    return [name if value else f"not {name}" for name, value in sorted(told.items())]
