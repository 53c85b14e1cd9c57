"""Statements for machines: written as text and read back, without evaluation, to the same statement.

The text is that of SymPy's `srepr`, a nest of constructor calls. Reading it builds each node from its arguments as
they stand, where calling the constructors would collect, cancel and reorder.
"""

import ast
import functools
import importlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import sympy as sp
from sympy.core.function import UndefinedFunction
from sympy.core.relational import Relational
from sympy.core.symbol import Str
from sympy.logic.boolalg import BooleanFunction
from sympy.printing.repr import ReprPrinter

from kexue_lib.derivation._assumptions import generators
from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._recurrences import Recurrence

__all__ = ["Form", "read", "write"]


class Form(NamedTuple):
    """A statement, the conditions it is made under, and what its proof builds on.

    `facts` are earlier results; `induction` is (n, the first n, …) where the statement is proved by induction over n.
    """

    statement: Any
    given: tuple[Any, ...] = ()
    facts: tuple[Any, ...] = ()
    induction: tuple[Any, ...] = ()


def write(statement: Any, given: Sequence[Any] = (), facts: Sequence[Any] = (), induction: Sequence[Any] = ()) -> str:
    """The text of a statement, of its conditions and of what its proof builds on.

    >>> x = sp.Symbol("x", positive=True)
    >>> write(sp.Eq(x + 1, 1 + x, evaluate=False))
    "Statement(Equality(Add(Symbol('x', positive=True), Integer(1)), Add(Symbol('x', positive=True), Integer(1))))"
    """
    printer = _Repr()
    parts = [printer.doprint(part) for part in (statement, *given)]
    further = (("By", facts), ("Induction", induction))
    parts += [f"{name}({', '.join(map(printer.doprint, items))})" for name, items in further if items]
    text = f"Statement({', '.join(parts)})"
    order: dict[str, int] = {}  # SymPy counts dummies from a random number on
    return re.sub(r"dummy_index=(\d+)", lambda m: f"dummy_index={order.setdefault(m[1], len(order))}", text)


def read(text: str) -> Form:
    """What `write` wrote.

    Raises:
        ValueError: the text is not of that form.
    """
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"text: {error.msg} in column {error.offset}, expected the form of a statement") from error
    if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "Statement" and call.args):
        raise ValueError(f"text: got {text[:60]!r}, expected Statement(...)")
    reader = _Reader()
    found: dict[str, list[Any]] = {"": [], "By": [], "Induction": []}
    for argument in call.args:
        name = argument.func.id if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) else ""
        if name in ("By", "Induction"):
            found[name] += map(reader.node, argument.args)
        else:
            found[""].append(reader.node(argument))
    statement, *given = found[""] or [None]
    return Form(statement, tuple(given), tuple(found["By"]), tuple(found["Induction"]))


class _Repr(ReprPrinter):
    """SymPy's text, with the assumptions about the values of unknown functions, which it leaves out."""

    def _print_FunctionClass(self, kind: Any) -> str:
        facts = generators(getattr(kind, "_kwargs", None) or {})
        if not facts:
            return super()._print_FunctionClass(kind)
        return f"Function({kind.__name__!r}, {', '.join(f'{name}={value}' for name, value in facts.items())})"


@functools.lru_cache(maxsize=1)
def _classes() -> dict[str, type]:
    """The kinds of expression that SymPy has no name for at its top, and ours."""
    importlib.import_module("kexue_lib.derivation._matrices")  # brings MatrixSum, which nothing here needs by name
    found, pending = {}, [sp.Basic]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if (kind.__module__ or "").split(".")[0] in ("sympy", "kexue_lib"):
            found.setdefault(kind.__name__, kind)
    return found


class _Reader:
    """Builds SymPy objects from the syntax tree of their text; nothing in the text is executed."""

    def __init__(self) -> None:
        self.dummies: dict[Any, sp.Dummy] = {}

    def node(self, e: ast.expr) -> Any:
        if isinstance(e, ast.Constant):
            return e.value
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
            return -self.node(e.operand)
        if isinstance(e, (ast.List, ast.Tuple)):
            return [self.node(item) for item in e.elts]
        if isinstance(e, ast.Name):
            return self._named(e.id)
        if isinstance(e, ast.Attribute):
            if isinstance(e.value, ast.Name) and e.value.id == "Q":
                return getattr(sp.Q, e.attr)
        elif isinstance(e, ast.Call):
            return self._call(e)
        raise ValueError(f"text: {ast.unparse(e)[:60]} is no part of a statement")

    def _named(self, name: str) -> Any:
        value = getattr(sp, name, None) or _classes().get(name)
        kind = value if isinstance(value, type) else type(value)
        if not issubclass(kind, sp.Basic):
            raise ValueError(f"text: {name} is no name of SymPy's")
        return value

    def _call(self, e: ast.Call) -> Any:
        keywords = {word.arg: self.node(word.value) for word in e.keywords}
        if isinstance(e.func, ast.Name) and e.func.id == "Function":
            return sp.Function(self.node(e.args[0]), **keywords)
        head = self.node(e.func)
        arguments = [self.node(argument) for argument in e.args]
        if head is sp.Dummy:
            key = (arguments[0], keywords.pop("dummy_index", None))
            return self.dummies.setdefault(key, sp.Dummy(arguments[0], **keywords))
        return _built(head, arguments, keywords)


def _built(head: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    if isinstance(head, UndefinedFunction) or not isinstance(head, type):
        return head(*arguments)
    if head in (sp.Symbol, sp.Integer, sp.Rational, sp.Float, Str):
        return head(*arguments, **keywords)
    if issubclass(head, sp.Mul) and len(arguments) > 2 and arguments[0].is_Number and arguments[1].is_Number:
        arguments = [arguments[0] * arguments[1], *arguments[2:]]  # srepr takes the sign of a coefficient apart
    if issubclass(head, (sp.Add, sp.Mul)):
        return _in_order(head, tuple(arguments))
    if issubclass(head, (ForEvery, Recurrence)):
        return head(*arguments)
    if issubclass(head, (sp.Pow, Relational, BooleanFunction)) and not keywords:
        return head(*arguments, evaluate=False)
    if issubclass(head, sp.MatrixBase):
        return head(*arguments)
    if issubclass(head, (sp.Function, sp.MatAdd, sp.MatMul, sp.Piecewise)):
        return head(*arguments, evaluate=False)
    if issubclass(head, sp.MatPow) and not issubclass(head, sp.Inverse):
        return head(*arguments, evaluate=False)
    return head(*arguments, **keywords)


def _in_order(head: Any, arguments: tuple[Any, ...]) -> Any:
    """The sum or product of these arguments, in SymPy's own order where calling it would do no more than sort.

    The text has them as they are printed, and what SymPy can prove (an integral, say) depends on their order.
    """
    called = head(*arguments)
    if isinstance(called, head) and Counter(called.args) == Counter(arguments):
        return called
    return head._from_args(arguments)
