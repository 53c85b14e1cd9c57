"""The second prover proves and refutes what it should, and contradicts no stored claim of the book."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import sympy as sp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
pytest.importorskip("z3")

from second_prover import CONFIRMED, confirm, stored_claims  # noqa: E402

from kexue_lib.derivation import form  # noqa: E402

x, y = sp.symbols("x y", real=True)
a, b = sp.symbols("a b", positive=True)
z = sp.Symbol("z")
n = sp.Symbol("n", integer=True)
X = sp.IndexedBase("X", real=True)
rest = lambda left, right: sp.Eq(left, right, evaluate=False)


@pytest.mark.parametrize(
    ("statement", "given", "answer"),
    [
        (rest((x + y) ** 2, x**2 + 2 * x * y + y**2), [], "confirmed"),
        (rest((x + y) ** 2, x**2 + y**2), [], "contradicted"),
        (rest((x**2 - 1) / (x - 1), x + 1), [sp.Ne(x, 1)], "confirmed"),
        ((a + b) / 2 >= sp.sqrt(a * b), [], "confirmed"),
        ((a + b) / 2 > sp.sqrt(a * b), [], "contradicted"),
        (rest(sp.sqrt(x**2 + 2 * x + 1), sp.Abs(x + 1)), [], "confirmed"),
        (rest(sp.sqrt(x**2 + 2 * x + 1), x + 1), [], "contradicted"),
        (rest(sp.Max(x, y) + sp.Min(x, y), x + y), [], "confirmed"),
        (rest(sp.Max(x, 0), (x - sp.Abs(x)) / 2), [], "contradicted"),
        (rest(sp.Piecewise((x, x > 0), (0, True)), sp.Max(x, 0)), [], "confirmed"),
        (rest(sp.Piecewise((1 / x, sp.Ne(x, 0)), (0, True)) * x, 1), [], "contradicted"),
        (sp.Implies(x > 1, x**2 > x), [], "confirmed"),
        (sp.Implies(x > 0, x**2 > x), [], "contradicted"),
        (x + y > 2 * x, [x < y], "confirmed"),
        (x * y < y**2, [x < y], "contradicted"),
        (n**2 >= n, [], "confirmed"),
        (x**2 >= x, [], "contradicted"),
        (sp.Q.positive(x**2 + 1), [], "confirmed"),
        (rest(sp.floor(x + 1), sp.floor(x) + 1), [], "confirmed"),
        (rest(sp.exp(x) * (1 + y), sp.exp(x) + y * sp.exp(x)), [], "confirmed"),
        (rest(sp.exp(x + y), sp.exp(x) * sp.exp(y)), [], "unknown"),
        (rest(X[1] * (X[2] + X[3]), X[1] * X[2] + X[1] * X[3]), [], "confirmed"),
        (sp.Eq(sp.ImmutableMatrix([[x, y]]), sp.ImmutableMatrix([[y, x]])), [], "contradicted"),
        (sp.sin(x) ** 2 <= 1, [], "confirmed"),
        (rest(z * z, z**2), [], "not translated"),
        (rest(sp.sqrt(x) * sp.sqrt(x + 1), sp.sqrt(x**2 + x)), [], "not translated"),
        (rest(sp.log(x), sp.log(x) + 0 * y), [], "not translated"),
        (rest(sp.Integral(x, (x, 0, a)), a**2 / 2), [], "not translated"),
        (x > y, [x > 1, x < 0], "unknown"),
    ],
)
def test_answers(statement, given, answer):
    assert confirm(form.write(statement, given)) == answer


def test_no_stored_claim_is_contradicted_and_the_ledger_marks_those_confirmed():
    answers, found = Counter(), {}
    for claim in stored_claims():
        answer = confirm(claim["form"])
        answers[answer] += 1
        assert answer != "contradicted", f"{claim['chapter']} {claim['label']}: {claim['title']}"
        if answer == "confirmed" and claim["evidence"] == "proved":
            found.setdefault(claim["chapter"], []).append(claim["label"])
    print(f"\nStored claims: {dict(sorted(answers.items()))}")
    assert json.loads(CONFIRMED.read_text(encoding="utf-8")) == found, "run tools/second_prover.py"
