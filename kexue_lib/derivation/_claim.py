"""The record of one checked statement, and how it is said in plain text."""

from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

EVIDENCE = ("measured", "checked", "proved")  # weakest first


@dataclass(frozen=True)
class Claim:
    """One checked statement, as the ledger lists it.

    `label` counts the chapter's claims from C1 (the steps of its calculations from S1), `statement` is LaTeX with the
    conditions, `evidence` is "proved", "checked" or "measured", `scope` says for which case, `method` how the evidence
    was found, `kind` is "claim" or "step", `instance` names the size if it holds for that one alone, `uses` are the
    labels of the claims that it builds on, and `form` is the statement for machines.
    """

    __module__ = "kexue_lib.derivation"

    chapter: str
    label: str
    title: str
    statement: str
    evidence: str
    scope: str
    method: str
    kind: str = "claim"
    instance: str = ""
    uses: tuple[str, ...] = ()
    form: str = ""


def plain(statement: Any) -> str:
    """A statement in one line of text."""
    sign = {"==": "=", "!=": "!="}.get(getattr(statement, "rel_op", ""), getattr(statement, "rel_op", ""))
    if not isinstance(statement, Relational):
        return str(statement)
    return f"{statement.lhs} {sign} {statement.rhs}".replace("\n", " ")


def has_float(*statements: Any) -> bool:
    """Whether decimal numbers occur: what they stand for is rounded, and nothing about them is proved."""
    return any(statement.has(sp.Float) for statement in statements)
