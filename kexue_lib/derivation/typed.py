"""Statements as people type them: printed from a claim, read back with the symbols they declare.

Nothing in the text is executed: names are those declared and SymPy's kinds of expression, the rest is arithmetic.
"""

import ast
import functools
import itertools
import keyword
import re
from typing import Any, NamedTuple

import sympy as sp

from kexue_lib.derivation._indexed_facts import ForEvery
from kexue_lib.derivation._matrices import MatrixSum
from kexue_lib.derivation._recurrences import Recurrence
from kexue_lib.derivation._typed_text import Typed, write

__all__ = ["Read", "Typed", "TypedError", "expression", "read", "write"]

_KINDS = ("real", "integer", "rational", "irrational", "complex", "imaginary", "prime", "even", "odd", "finite")
_KINDS += ("positive", "negative", "nonnegative", "nonpositive", "nonzero", "zero")
_KINDS += ("algebraic", "transcendental", "composite", "noninteger")
_OWN = {"ForEvery": ForEvery, "MatrixSum": MatrixSum, "Recurrence": Recurrence, "Matrix": sp.ImmutableMatrix}
_FUNCTIONS = {"sqrt": sp.sqrt, "cbrt": sp.cbrt, "root": sp.root, "ln": sp.log, "abs": sp.Abs, "max": sp.Max}
_FUNCTIONS |= {"min": sp.Min, "det": sp.Determinant, "trace": sp.Trace, "sum": sp.Sum, "product": sp.Product}
_FUNCTIONS |= {"integral": sp.Integral, "limit": sp.Limit, "diff": sp.Derivative}
_COUNTING = ("sympy.functions.combinatorial", "sympy.functions.special.gamma", "sympy.functions.special.zeta")
_BINDING = {"Sum": "integer", "sum": "integer", "Product": "integer", "product": "integer", "Integral": "real"}
_BINDING |= {"integral": "real"}
_HINTS = {"e": "; Euler's number is E, its powers exp(x)", "i": "; the imaginary unit is I"}
_LONGEST, _DEEPEST, _LARGEST = 4000, 40, 20  # characters, brackets within brackets, rows of a matrix
_MOST_BITS, _MOST_COUNTED = 20_000, 2_000  # of a number written out; arguments of factorials and their kind
_PYTHONS = {"≤": "<=", "≥": ">=", "≠": "!=", "−": "-", "·": "*", "×": "*", "∞": "oo", "^": "**", "lambda": "lambda_"}
_PYTHONS |= {"π": "pi", "²": "**2", "³": "**3", "dir=": "dir="}
_SIGNS = {ast.Lt: sp.Lt, ast.LtE: sp.Le, ast.Gt: sp.Gt, ast.GtE: sp.Ge, ast.Eq: sp.Eq, ast.NotEq: sp.Ne}


class TypedError(ValueError):
    """What cannot be read, where and why.

    Attributes:
        field: "symbols", "conditions", "statement" or "answer".
        line: in the field, from 1.
        column: in the line, from 1.
        reason: in words.
    """

    def __init__(self, field: str, line: int, column: int, reason: str) -> None:
        super().__init__(f"{field}, line {line}, column {column}: {reason}")
        self.field, self.line, self.column, self.reason = field, line, column, reason


class Read(NamedTuple):
    """A statement that was read.

    Attributes:
        statement: as SymPy holds it.
        given: its conditions.
        divisors: what must not vanish, though SymPy cancelled it while the statement was read.
    """

    statement: Any
    given: tuple[Any, ...]
    divisors: tuple[Any, ...] = ()

    @property
    def whole(self) -> Any:
        """The statement, and that no cancelled divisor is zero."""
        return sp.And(self.statement, *(sp.Ne(d, 0) for d in self.divisors)) if self.divisors else self.statement


def read(typed: Typed) -> Read:
    """The statement and its conditions.

    Raises:
        TypedError: naming the place.

    >>> read(Typed("x: real", "x > 1", "x^2 >= x"))
    Read(statement=x**2 >= x, given=(x > 1,), divisors=())
    >>> read(Typed("x: real", "", "x^2/x = x + 1")).divisors
    (x,)
    """
    names = _declared(typed.symbols)
    given = []
    for number, line in enumerate(typed.given.splitlines(), 1):
        if line.strip():
            given.append(_relation("conditions", number, line, names).whole)
    lines = [line for line in typed.statement.splitlines() if line.strip()]
    if not lines:
        raise TypedError("statement", 1, 1, "there is none; type one, such as x**2 >= 0")
    found = _relation("statement", 1, " ".join(typed.statement.splitlines()), names)
    return found._replace(given=tuple(given))


def expression(text: str, symbols: str) -> Any:
    """One expression.

    Args:
        text: as it is typed, such as "2x + sqrt(y)".
        symbols: the declarations, such as "x, y: positive".

    Raises:
        TypedError: naming the place.

    >>> expression("2x + x", "x: real")
    3*x
    """
    return _Reader("answer", 1, text, _declared(symbols)).value()


class _Names(dict[str, Any]):
    """What the names mean, and with how many arguments the unknown functions among them are used."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: dict[str, int] = {}


def _declared(text: str) -> _Names:
    names = _Names()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        left, colon, right = line.partition(":")
        if not colon:
            raise TypedError(
                "symbols", number, 1, f"expected names, a colon and their kind, such as {line.strip()}: real"
            )
        for name in (part.strip() for part in left.split(",")):
            if not name.isidentifier() or (keyword.iskeyword(name) and name != "lambda"):
                raise TypedError("symbols", number, 1, f"{name!r} is no name")
            names["lambda_" if name == "lambda" else name] = _declaration(name, right.strip(), number, names)
    return names


def _declaration(name: str, kind: str, line: int, names: _Names) -> Any:
    size = re.fullmatch(r"matrix\s*\((.*)\)", kind)
    if size:
        shape = _Reader("symbols", line, f"({size[1]},)", names).value()
        if len(shape) != 2:
            raise TypedError("symbols", line, 1, f"{name}: a matrix has two sizes, such as matrix (n, m)")
        if any(getattr(size, "is_Number", False) and not 0 < size <= _LARGEST for size in shape):
            raise TypedError("symbols", line, 1, f"{name}: a size is a symbol, or a number from 1 to {_LARGEST}")
        try:
            return sp.MatrixSymbol(name, *shape)
        except (TypeError, ValueError) as error:
            raise TypedError("symbols", line, 1, f"{name}: {error}") from error
    made: Any = sp.Symbol
    assumptions: dict[str, bool] = {}
    for words in re.split(r"[,\s]+(?!$)", re.sub(r"\bnot\s+", "not-", kind)):
        word, value = (words[4:], False) if words.startswith("not-") else (words, True)
        if word == "indexed":
            made = sp.IndexedBase
        elif word == "function":
            made = sp.Function
        elif word in _KINDS:
            assumptions[word] = value
        elif word != "number":
            known = ", ".join((*_KINDS, "indexed", "function", "matrix (n, m)"))
            raise TypedError("symbols", line, 1, f"{word!r} is no kind; there are {known}")
    try:
        return made(name, **assumptions)
    except sp.core.facts.InconsistentAssumptions as error:
        raise TypedError("symbols", line, 1, f"{name} cannot be {kind}") from error


def _relation(field: str, line: int, text: str, names: _Names) -> Read:
    found, divisors = _Reader(field, line, text, names).relation()
    if found in (True, False):
        return Read(sp.true if found else sp.false, (), divisors)
    if not isinstance(found, sp.logic.boolalg.Boolean) or isinstance(found, sp.Symbol):
        raise TypedError(field, line, 1, "this is a value; expected a statement, such as one with =, < or >=")
    return Read(found, (), divisors)


class _Reader:
    """Builds SymPy objects from the syntax tree of one line."""

    def __init__(self, field: str, line: int, text: str, names: _Names) -> None:
        self.field, self.line, self.names = field, line, names
        self.divisors: list[Any] = []
        self.bound: set[Any] = set()
        depth = max(itertools.accumulate((c in "([{") - (c in ")]}") for c in text), default=0)
        if len(text) > _LONGEST or depth > _DEEPEST:
            raise TypedError(
                field, line, 1, f"this page reads up to {_LONGEST} characters and {_DEEPEST} brackets deep"
            )
        indent = len(text) - len(text.lstrip())
        self.source, origin = _python(text.strip())
        self.column = lambda at: indent + origin[max(0, min(at, len(origin) - 1))] + 1
        try:
            self.tree = ast.parse(self.source, mode="eval").body
        except SyntaxError as error:
            raise TypedError(field, line, self.column((error.offset or 1) - 1), error.msg) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise TypedError(field, line, 1, "this is too deep, or holds a character that is none") from error
        self._declare_indices()

    def value(self) -> Any:
        """The expression."""
        return self._guarded(self.tree)

    def _declare_indices(self) -> None:
        """An index of a sum need not be declared."""
        for call in (e for e in ast.walk(self.tree) if isinstance(e, ast.Call) and isinstance(e.func, ast.Name)):
            for limits in call.args[1:] if call.func.id in _BINDING else ():
                first = limits.elts[0] if isinstance(limits, ast.Tuple) and limits.elts else None
                if isinstance(first, ast.Name) and first.id not in self.names:
                    self.names[first.id] = sp.Symbol(first.id, **{_BINDING[call.func.id]: True})

    def relation(self) -> tuple[Any, tuple[Any, ...]]:
        """The statement, and the divisors that SymPy cancelled while it read the statement."""
        found = self._relation()
        held = {part.base for part in found.atoms(sp.Pow) if part.exp.could_extract_minus_sign()}
        factors = (f for d in self.divisors for f in sp.Mul.make_args(d))
        lost = (f for f in factors if not {f, f.as_base_exp()[0]} & held)
        lost = [
            f for f in dict.fromkeys(lost) if f.free_symbols and not f.free_symbols & self.bound and not f.is_Matrix
        ]
        return found, tuple(factor for factor in lost if sp.Ne(factor, 0) != sp.true)

    def _relation(self) -> Any:
        """The statement; a relation at its top keeps both sides as they were typed."""
        top = self.tree
        if isinstance(top, ast.Compare) and len(top.ops) == 1 and type(top.ops[0]) in _SIGNS:
            left, right = self._guarded(top.left), self._guarded(top.comparators[0])
            return self._try(top, _SIGNS[type(top.ops[0])], left, right, evaluate=False)
        return self._guarded(top)

    def _wrong(self, e: ast.AST, reason: str) -> TypedError:
        before = self.source.encode()[: getattr(e, "col_offset", 0)].decode(errors="ignore")  # Python counts bytes
        return TypedError(self.field, self.line, self.column(len(before)), reason)

    def _try(self, e: ast.AST, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except TypedError:
            raise
        except RecursionError as error:
            raise self._wrong(e, "this is too deep") from error
        except Exception as error:  # whatever SymPy's constructors refuse is the reader's to mend
            raise self._wrong(e, f"SymPy refuses {ast.unparse(e)[:60]}: {error}") from error

    def _guarded(self, e: ast.AST) -> Any:
        return self._try(e, self._node, e)

    def _node(self, e: Any) -> Any:
        if isinstance(e, ast.Constant):
            return self._constant(e)
        if isinstance(e, ast.Name):
            return self._name(e)
        if isinstance(e, (ast.Tuple, ast.List)):
            return [self._guarded(item) for item in e.elts] if isinstance(e, ast.List) else self._tuple(e)
        if isinstance(e, ast.UnaryOp):
            return self._signed(e)
        if isinstance(e, ast.BinOp):
            return self._arithmetic(e)
        if isinstance(e, ast.Compare):
            sides = [self._guarded(side) for side in (e.left, *e.comparators)]
            if any(type(sign) not in _SIGNS for sign in e.ops):
                raise self._wrong(e, "only =, !=, <, <=, > and >= compare")
            return sp.And(*(_SIGNS[type(sign)](a, b) for sign, a, b in zip(e.ops, sides, sides[1:])))
        if isinstance(e, ast.BoolOp):
            return (sp.And if isinstance(e.op, ast.And) else sp.Or)(*map(self._guarded, e.values))
        if isinstance(e, ast.Subscript):
            return self._guarded(e.value)[self._guarded(e.slice)]
        if isinstance(e, ast.Attribute):
            return self._attribute(e)
        if isinstance(e, ast.Call):
            return self._call(e)
        raise self._wrong(e, f"{ast.unparse(e)[:40]} is no part of a statement")

    def _tuple(self, e: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._guarded(item) for item in e.elts)

    def _constant(self, e: ast.Constant) -> Any:
        if isinstance(e.value, bool):
            return sp.true if e.value else sp.false
        if isinstance(e.value, int):
            return sp.Integer(e.value)
        if isinstance(e.value, float):
            if not (e.value == 0 or 1e-60 < abs(e.value) < 1e60):
                raise self._wrong(e, "decimal numbers lie between 1e-60 and 1e60")
            return sp.Rational(ast.get_source_segment(self.source, e) or repr(e.value))
        if isinstance(e.value, str) and e.value in ("+", "-", "+-"):  # the side that a limit comes from
            return e.value
        raise self._wrong(e, f"{e.value!r} is no number")

    def _name(self, e: ast.Name) -> Any:
        if e.id in self.names:
            return self.names[e.id]
        value = _sympys().get(e.id)
        if value is None:
            place = "is none of the symbols of this exercise" if self.field == "answer" else "is not declared"
            advice = "" if self.field == "answer" else f"; add it to the symbols, such as {e.id}: real"
            raise self._wrong(e, f"{e.id} {place}{_HINTS.get(e.id, advice)}")
        return value

    def _signed(self, e: ast.UnaryOp) -> Any:
        value = self._guarded(e.operand)
        if isinstance(e.op, (ast.Not, ast.Invert)):
            return sp.Not(value)
        return -value if isinstance(e.op, ast.USub) else value

    def _arithmetic(self, e: ast.BinOp) -> Any:
        spine = [e]  # a long sum is a deep tree
        while isinstance(spine[-1].left, ast.BinOp):
            spine.append(spine[-1].left)
        value = self._guarded(spine[-1].left)
        for node in reversed(spine):
            value = self._try(node, self._operation, node, value, self._guarded(node.right))
        return value

    def _operation(self, e: ast.BinOp, left: Any, right: Any) -> Any:
        kind = type(e.op)
        if any(isinstance(side, sp.MatrixExpr) for side in (left, right)) and kind in (ast.Add, ast.Sub, ast.Mult):
            return self._of_matrices(kind, left, right)
        if kind is ast.Add:
            return left + right
        if kind is ast.Sub:
            return left - right
        if kind in (ast.Mult, ast.MatMult):
            return left * right
        if kind is ast.Div:
            if right == 0:
                raise self._wrong(e, "this divides by zero")
            self.divisors.append(right)
            return left / right
        if kind is ast.Mod:
            return sp.Mod(left, right)
        if kind is ast.Pow:
            if getattr(right, "is_negative", False):
                self.divisors.append(left)
            if (
                getattr(right, "is_Integer", False)
                and getattr(left, "is_Rational", False)
                and _is_too_long(left, right)
            ):
                raise self._wrong(e, "this number has too many digits to be written out")
            return left**right
        connective = {ast.BitAnd: sp.And, ast.BitOr: sp.Or, ast.RShift: sp.Implies}.get(kind)
        if connective is not None:
            if not all(isinstance(side, sp.logic.boolalg.Boolean) and not side.is_Symbol for side in (left, right)):
                raise self._wrong(e, "put brackets around each statement, as in (x > 0) | (x < 1)")
            return connective(left, right)
        raise self._wrong(e, "there are + - * / ** % & | and >> (implies)")

    @staticmethod
    def _of_matrices(kind: type, left: Any, right: Any) -> Any:
        """Products and sums as they stand, where `*` and `+` would cancel; SymPy's order among the terms of a sum."""
        if kind is ast.Mult:
            factors = [f for side in (left, right) for f in (side.args if isinstance(side, sp.MatMul) else (side,))]
            return sp.MatMul(*factors)
        terms = [*(left.args if isinstance(left, sp.MatAdd) else (left,))]
        other = -right if kind is ast.Sub else right
        terms += other.args if isinstance(other, sp.MatAdd) else (other,)
        return sp.MatAdd(*sorted(terms, key=sp.default_sort_key))

    def _attribute(self, e: ast.Attribute) -> Any:
        if isinstance(e.value, ast.Name) and e.value.id == "Q" and "Q" not in self.names:
            if not e.attr.startswith("_") and isinstance(getattr(sp.Q, e.attr, None), sp.Basic):
                return getattr(sp.Q, e.attr)
            raise self._wrong(e, f"Q.{e.attr} is no predicate")
        if e.attr in ("T", "I"):
            value = self._guarded(e.value)
            if getattr(value, "is_Matrix", False):
                lazy = sp.Transpose if e.attr == "T" else sp.Inverse
                return lazy(value) if isinstance(value, sp.MatrixExpr) else lazy(value).doit()
        raise self._wrong(e, f".{e.attr} is no part of a statement; matrices have .T")

    def _call(self, e: ast.Call) -> Any:
        head = self._guarded(e.func)
        arguments = [self._guarded(argument) for argument in e.args]
        if any(word.arg != "dir" for word in e.keywords):
            raise self._wrong(e, "only a limit has an option, dir")
        options = {word.arg: self._guarded(word.value) for word in e.keywords}
        if isinstance(head, sp.Basic) and not isinstance(head, sp.assumptions.assume.Predicate | sp.Lambda):
            raise self._wrong(e, f"{ast.unparse(e.func)[:40]} is no function; write a product with *")
        if head in (sp.Eq, sp.Ne, sp.Lt, sp.Le, sp.Gt, sp.Ge):
            options["evaluate"] = False
        count = self.names.arguments.setdefault(head.__name__, len(arguments)) if head in self.names.values() else None
        if count not in (None, len(arguments)):
            raise self._wrong(e, f"{head.__name__} is used with {count} arguments elsewhere")
        if (head.__module__ or "").startswith(_COUNTING) and any(
            getattr(a, "is_Integer", False) and abs(a) > _MOST_COUNTED for a in arguments
        ):
            raise self._wrong(e, f"with numbers, {head.__name__} is read up to {_MOST_COUNTED}")
        found = head(*arguments, **options)
        self.bound |= set(getattr(found, "bound_symbols", ()))
        return found


def _is_too_long(base: sp.Rational, exponent: sp.Integer) -> bool:
    """Whether a power would be too long."""
    return abs(int(exponent)) * max(base.p.bit_length(), base.q.bit_length()) > _MOST_BITS


@functools.cache
def _sympys() -> dict[str, Any]:
    """SymPy's kinds of expression and constants, ours, and a few names that people type."""
    found = {}
    for name in dir(sp):
        value = getattr(sp, name)
        is_kind = isinstance(value, type) and issubclass(value, (sp.Expr, sp.logic.boolalg.Boolean, sp.MatrixExpr))
        if (is_kind or isinstance(value, sp.Expr)) and not name.startswith("_"):
            found[name] = value
    for hidden in ("Symbol", "Dummy", "Wild", "Function", "IndexedBase", "MatrixSymbol", "Float", "Poly"):
        found.pop(hidden, None)
    found |= {"Lambda": sp.Lambda, "Piecewise": sp.Piecewise, "true": sp.true, "false": sp.false}
    return found | _FUNCTIONS | _OWN


def _python(text: str) -> tuple[str, list[int]]:
    """The line as Python reads it, and where each of its characters stood: ^ for powers, one = for an equation, 2x."""
    out, origin = [], []
    # A number before a letter or a bracket is a factor.
    number = r"(?P<number>(?<![\w.])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?=\s*(?!(?:and|or|if)\b)(?:[^\W\d]|\()))"
    for match in re.finditer(rf"\blambda\b|\bdir\s*=|[<>!=]=|{number}|.", text):
        piece = match[0]
        if match["number"]:
            piece += "*"
        piece = "==" if piece == "=" else _PYTHONS.get(piece, piece)
        out.append(piece)
        origin += [match.start()] * len(piece)
    return "".join(out), [*origin, len(text)]
