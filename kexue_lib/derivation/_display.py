"""How a derivation's steps look: LaTeX that MathJax typesets everywhere, plain text, and the MIME bundles."""

import html
import re
import sys
from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.printing.latex import LatexPrinter

from kexue_lib.derivation._claim import Claim

CLAIM_MIME = "application/vnd.kexue.claim+json"
CALCULATION_MIME = "application/vnd.kexue.calculation+json"
VERDICT_MIME = "application/vnd.kexue.verdict+json"
_LINE = 46  # glyphs of a formula that fit a phone
_TEXT_LINE = 52

_IN_MATH = {"_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "{": r"\{", "}": r"\}"}
_IN_MATH |= {"\\": r"\backslash", "^": r"\wedge", "~": r"\sim"}


class _Printer(LatexPrinter):
    """SymPy's LaTeX, but a matrix given by a formula for its entries in the notation of textbooks."""

    def _print_FunctionMatrix(self, matrix: sp.FunctionMatrix) -> str:
        indices, entry = matrix.lamda.signature, self._print(matrix.lamda.expr)
        names = [self._print(index) for index in indices]
        ends = [self._print(size) for size in matrix.shape]
        first = rf"0 \leq {', '.join(names)} < {ends[0]}"
        ranges = first if ends[0] == ends[1] else ",\\ ".join(rf"0 \leq {i} < {n}" for i, n in zip(names, ends))
        return rf"\left[{entry}\right]_{{{ranges}}}"


_PRINTER = _Printer({"ln_notation": False, "mat_delim": "(", "mat_str": "matrix", "imaginary_unit": "i"})


def latex(expression: Any) -> str:
    """The LaTeX of an expression, as the whole book prints it."""
    return _PRINTER.doprint(expression)


def statement_latex(statement: Any, given: Sequence[Any], domain: str) -> tuple[list[str], str]:
    """The rows of a statement (one, or broken at its relation sign) and its conditions."""
    relation = {"==": "=", "!=": r"\neq", "<": "<", "<=": r"\leq", ">": ">", ">=": r"\geq"}
    sign = relation.get(getattr(statement, "rel_op", ""))
    if sign is None:
        rows = [latex(statement)]
    else:
        left, right = latex(statement.lhs), latex(statement.rhs)
        long = glyphs(left) + glyphs(right) > _LINE
        rows = [left, rf"\quad {{}} {sign} {right}"] if long else [f"{left} {sign} {right}"]
    conditions = ",\\ ".join([*(latex(condition) for condition in given), *([domain] if domain else [])])
    return rows, conditions


def domain_latex(*parts: Any) -> str:
    """What the assumptions say about the unknowns of a statement, those with the same assumption together."""
    statements = [part for group in parts for part in (group if isinstance(group, tuple) else (group,))]
    everything = [part for part in statements if isinstance(part, sp.Basic)]
    bases = {base for part in everything for base in part.atoms(sp.IndexedBase)}
    matrices = {matrix for part in everything for matrix in part.atoms(sp.MatrixSymbol)}
    functions = {e.func for part in everything for e in part.atoms(AppliedUndef)}
    sizes = {s for matrix in matrices for size in matrix.shape for s in sp.sympify(size).free_symbols}
    hidden = {base.label for base in bases} | {matrix.args[0] for matrix in matrices} | set(bases) | matrices
    symbols = (set().union(*(part.free_symbols for part in everything)) | sizes) - hidden
    named = [(latex(s), _kind(s)) for s in symbols if isinstance(s, sp.Symbol)]
    named += [(rf"{latex(base)}_{{i}}", _kind(sp.Symbol("x", **base.assumptions0))) for base in bases]
    named += [
        (rf"{latex(sp.Symbol(f.__name__))}(\cdot)", _kind(sp.Symbol("f", **(f._kwargs or {})))) for f in functions
    ]
    groups: dict[str, list[str]] = {}
    for name, kind in sorted(named, key=lambda pair: (re.sub(r"\W", "", pair[0]), pair[0])):
        groups.setdefault(kind, []).append(name)
    words = [", ".join(names) + kind for kind, names in groups.items()]
    words += [
        rf"{latex(m)} \in \mathbb{{C}}^{{{latex(m.shape[0])} \times {latex(m.shape[1])}}}" for m in _sorted(matrices)
    ]
    return ",\\ ".join(words)


def _sorted(found: Any) -> list[Any]:
    return sorted(found, key=str)


def _kind(symbol: Any) -> str:
    """The assumptions about a symbol, an entry or a function's values, as a set that they lie in."""
    more = [
        (symbol.is_integer and symbol.is_odd, r"\ \text{odd}"),
        (symbol.is_integer and symbol.is_even, r"\ \text{even}"),
        (symbol.is_prime, r"\ \text{prime}"),
        (symbol.is_extended_real and symbol.is_integer is False, r"\ \text{not whole}"),
        (symbol.is_irrational, r"\ \text{irrational}"),
        (symbol.is_rational and not symbol.is_integer, r"\ \text{rational}"),
    ]
    kinds = [
        (symbol.is_integer and symbol.is_positive, r" \in \{1, 2, \ldots\}"),
        (symbol.is_integer and symbol.is_nonnegative, r" \in \{0, 1, 2, \ldots\}"),
        (symbol.is_integer and symbol.is_nonzero, r" \in \mathbb{Z} \setminus \{0\}"),
        (symbol.is_integer, r" \in \mathbb{Z}"),
        (symbol.is_positive, " > 0"),
        (symbol.is_negative, " < 0"),
        (symbol.is_nonnegative, r" \geq 0"),
        (symbol.is_nonpositive, r" \leq 0"),
        (symbol.is_extended_real and symbol.is_nonzero, r" \in \mathbb{R} \setminus \{0\}"),
        (symbol.is_extended_real, r" \in \mathbb{R}"),
        (symbol.is_imaginary, r" \in i\,\mathbb{R} \setminus \{0\}"),
        (symbol.is_nonzero or symbol.is_zero is False, r" \in \mathbb{C} \setminus \{0\}"),
        (True, r" \in \mathbb{C}"),
    ]
    return next(words for applies, words in kinds if applies) + "".join(words for applies, words in more if applies)


def glyphs(source: str) -> int:
    """Roughly how many characters wide a formula is."""
    while True:  # of a fraction only the wider part counts
        shorter = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", lambda m: max(m.groups(), key=len), source)
        if shorter == source:
            break
        source = shorter
    source = re.sub(r"\\(left|right|displaystyle|operatorname|begin|end|mathbb|mathrm)\b", "", source)
    return len(re.sub(r"\\[a-zA-Z]+|[{}^_&\s]|\\\\", lambda m: "x" if m[0].startswith("\\") else "", source))


def text(words: str, command: str = r"\text") -> str:
    """Words as LaTeX inside a formula; `$…$` stays mathematics, special characters are safe everywhere."""
    pieces = []
    for position, piece in enumerate(re.split(r"\$([^$]*)\$", words)):
        if position % 2:
            pieces.append(f"{{{piece}}}")
            continue
        for part in re.split(r"([_%#&$\\^~{}])", piece):
            if part in _IN_MATH:
                pieces.append(_IN_MATH[part] + ("{}" if part in "\\^~" else ""))
            elif part:
                pieces.append(f"{command}{{{part}}}")
    return "".join(pieces)


def wrapped(words: str, width: int = _TEXT_LINE) -> list[str]:
    """Lines of at most about `width` characters; `$…$` is never broken."""
    lines, line = [], ""
    for word in re.findall(r"(?:\$[^$]*\$|\S)+", words):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line else lines


def array(rows: Sequence[str]) -> str:
    """Left-aligned rows as one formula."""
    body = r" \\ ".join(rows)
    return rf"$\displaystyle \begin{{array}}{{l}} {body} \end{{array}}$"


def statement_block(rows: Sequence[str], conditions: str) -> str:
    """The statement as one formula; conditions stand beside a short one and below a long one."""
    if conditions:
        conditions = rf"\left({conditions}\right)"
        if len(rows) == 1 and glyphs(rows[0]) + glyphs(conditions) <= _LINE:
            rows = [rf"{rows[0]} \quad {conditions}"]
        else:
            rows = [*rows, rf"{{\small {conditions}}}"]
    if len(rows) == 1:
        return rows[0]
    body = r" \\ ".join(rf"\displaystyle {row}" for row in rows)
    return rf"\begin{{array}}{{l}} {body} \end{{array}}"


def badge(claim: Claim) -> str:
    """The evidence as readers see it: a proof for one size says so."""
    return f"{claim.evidence} for {claim.instance}" if claim.instance else claim.evidence


def claim_latex(claim: Claim, rows: Sequence[str], conditions: str) -> str:
    """The whole display of a claim."""
    lines = wrapped(claim.title, _LINE)
    heading = [rf"\textbf{{{claim.label}}}\quad " + text(line, r"\textbf") for line in lines[:1]]
    heading += [text(line, r"\textbf") for line in lines[1:]]
    body = [rf"\displaystyle {row}" for row in rows]
    if conditions:
        body.append(rf"{{\small {conditions}}}")
    if claim.scope:
        body += [rf"{{\small {text(line)}}}" for line in wrapped(f"Scope: {claim.scope}")]
    by = f"; by {', '.join(claim.uses)}" if claim.uses else ""
    foot = [rf"{{\small {text(line, chr(92) + 'textsf')}}}" for line in wrapped(f"{badge(claim)}: {claim.method}{by}")]
    return array([*heading, *body, *foot])


def induction_latex(proof: Any, n: Any, first: int, given: Sequence[Any]) -> tuple[list[str], str]:
    """The rows of an induction: the statement, its base case and its step; and the conditions."""
    hypothesis = statement_latex(proof.hypothesis, (), "")[0]
    base, step = statement_latex(proof.base, (), "")[0], statement_latex(proof.step, (), "")[0]
    rows = [*hypothesis, rf"\text{{base: }} {base[0]}", *base[1:], rf"\text{{step: }} {step[0]}", *step[1:]]
    kinds = domain_latex(proof.hypothesis, tuple(given))
    kinds = ",\\ ".join([*(latex(condition) for condition in given), *([kinds] if kinds else [])])
    return rows, rf"{kinds},\ \text{{for every }} {latex(n)} \geq {first}"


def calculation(chapter: str, title: str, steps: Sequence[tuple[Claim, dict[str, Any]]]) -> dict[str, Any]:
    """The steps of one calculation as one bundle: a folded line that counts them, open on click."""
    kinds = sorted({badge(claim) for claim, _ in steps})
    count = f"{len(steps)} step{'s' * (len(steps) > 1)} of this calculation"
    summary = (
        f"{title}: {count}, {('all ' if len(steps) > 1 else '') + kinds[0] if len(kinds) == 1 else ', '.join(kinds)}"
    )
    body = "".join(f"<div>{bundle['text/latex']}</div>" for _, bundle in steps)
    return {
        "text/html": f"<details><summary>{html.escape(summary)}</summary>{body}</details>",
        "text/plain": "\n".join([summary, *(bundle["text/plain"] for _, bundle in steps)]),
        CALCULATION_MIME: {"chapter": chapter, "title": title, "steps": [bundle[CLAIM_MIME] for _, bundle in steps]},
    }


def verdict(row: dict[str, str]) -> dict[str, Any]:
    """A published claim beside ours, as one bundle."""
    reason = f" — {row['why']}" if row["why"] else ""
    title, word, claimed, obtained = row["title"], row["verdict"], row["claimed"], row["obtained"]
    return {
        "text/markdown": f"**{title}** — *{word}*. Claimed: {claimed}. Obtained: {obtained}.{reason}",
        "text/plain": f"[{word}] {title}: claimed {claimed}; obtained {obtained}{reason}",
        VERDICT_MIME: row,
    }


def publish(bundle: dict[str, Any]) -> None:
    """Show a bundle where IPython runs; do nothing elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(bundle, raw=True)
