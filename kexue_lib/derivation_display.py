"""How a derivation's steps look: LaTeX that MathJax typesets everywhere, plain text, and the MIME bundles.

Part of :mod:`kexue_lib.derivation`, which is the place to call.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

import sympy as sp

CLAIM_MIME = "application/vnd.kexue.claim+json"
VERDICT_MIME = "application/vnd.kexue.verdict+json"
_LINE = 46  # glyphs of a formula that fit a phone
_TEXT_LINE = 52

_IN_MATH = {"_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "{": r"\{", "}": r"\}"}
_IN_MATH |= {"\\": r"\backslash", "^": r"\wedge", "~": r"\sim"}


def latex(expression: Any) -> str:
    """The LaTeX of an expression, as the whole book prints it."""
    return sp.latex(expression, ln_notation=False, mat_delim="(", mat_str="matrix", imaginary_unit="i")


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


def domain_latex(symbols: Sequence[sp.Symbol]) -> str:
    """What the assumptions say about the symbols, those with the same assumption together."""
    groups: dict[str, list[str]] = {}
    for symbol in symbols:
        groups.setdefault(_kind(symbol), []).append(latex(symbol))
    return ",\\ ".join(", ".join(names) + kind for kind, names in groups.items() if kind)


def _kind(symbol: sp.Symbol) -> str:
    kinds = [
        (symbol.is_integer and symbol.is_positive, r" \in \{1, 2, \ldots\}"),
        (symbol.is_integer and symbol.is_nonnegative, r" \in \{0, 1, 2, \ldots\}"),
        (symbol.is_integer, r" \in \mathbb{Z}"),
        (symbol.is_positive, " > 0"),
        (symbol.is_negative, " < 0"),
        (symbol.is_nonnegative, r" \geq 0"),
        (symbol.is_nonpositive, r" \leq 0"),
        (symbol.is_extended_real and symbol.is_nonzero, r" \in \mathbb{R} \setminus \{0\}"),
        (symbol.is_extended_real, r" \in \mathbb{R}"),
        (True, r" \in \mathbb{C}"),
    ]
    return next(words for applies, words in kinds if applies)


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


def claim_latex(
    label: str, title: str, rows: Sequence[str], conditions: str, scope: str, evidence: str, method: str
) -> str:
    """The whole display of a claim."""
    heading = [rf"\textbf{{{label}}}\quad " + text(line, r"\textbf") for line in wrapped(title, _LINE)[:1]]
    heading += [text(line, r"\textbf") for line in wrapped(title, _LINE)[1:]]
    body = [rf"\displaystyle {row}" for row in rows]
    if conditions:
        body.append(rf"{{\small {conditions}}}")
    if scope:
        body += [rf"{{\small {text(line)}}}" for line in wrapped(f"Scope: {scope}")]
    foot = [rf"{{\small {text(line, chr(92) + 'textsf')}}}" for line in wrapped(f"{evidence}: {method}")]
    return array([*heading, *body, *foot])


def publish(bundle: dict[str, Any]) -> None:
    """Show a bundle where IPython runs; do nothing elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(bundle, raw=True)
