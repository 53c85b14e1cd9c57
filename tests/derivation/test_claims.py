"""Claims that build on claims, calculations, instances, inductions, and the form of a claim for machines."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp
from test_pairs import UNDECIDED

from kexue_lib.derivation import Derivation, DerivationError, ForEvery, MatrixSum, Recurrence, _display, form

x, y = sp.symbols("x y", real=True)
a, b = sp.symbols("a b", positive=True)
n, m = sp.symbols("n m", integer=True, positive=True)
k, j = sp.symbols("k j", integer=True)
X = sp.IndexedBase("X", real=True)
W = sp.IndexedBase("W", positive=True)
ROOT = Path(__file__).resolve().parents[2]


# --- claims that build on claims --------------------------------------------------------------------------------------


def test_a_claim_follows_from_an_earlier_one_and_says_so(d, shown):
    d.holds("Hypothesis on f", sp.exp(x) >= 1 + x)
    d.holds("Below the square of a tangent", sp.exp(x) ** 2 >= (1 + x) ** 2, given=[x >= 0])
    d.holds("A chain", sp.exp(x) + y**2 >= 1 + x, uses=(d["C1"],))
    claim = d["C3"]
    assert (claim.evidence, claim.uses) == ("proved", ("C1",))
    assert shown[-1][_display.CLAIM_MIME]["uses"] == ["C1"]
    assert "by C1" in shown[-1]["text/latex"]


def test_a_claim_can_be_used_at_other_values(d):
    d.holds("Tangent", sp.exp(x) >= 1 + x)
    d.holds("Tangent of the square", sp.exp(y**2) + a >= 1 + y**2, uses=[(d["C1"], {x: y**2})])
    assert d["C2"].uses == ("C1",)
    with pytest.raises(ValueError, match="assumptions"):
        d.holds("Not a real value", sp.exp(y) + 1 >= y, uses=[(d["C1"], {x: sp.I})])


def test_evidence_is_never_stronger_than_that_of_the_claims_used(d):
    d.equal("Checked only", sp.floor(n / 2) + sp.ceiling(n / 2), n)
    assert d["C1"].evidence == "checked"
    d.equal("Would be proved", (n + 1) ** 2, n**2 + 2 * n + 1, uses=(d["C1"],))
    assert d["C2"].evidence == "checked"


def test_what_cannot_be_used_is_refused(d):
    other = Derivation("other")
    other.holds("Elsewhere", sp.exp(x) >= 1 + x)
    d.measured("Run", 1.0, 1)
    with pytest.raises(ValueError, match="uses"):
        d.equal("other", (x + 1) ** 2, x**2 + 2 * x + 1, uses=(other["C1"],))
    with pytest.raises(ValueError, match="measured"):
        d.equal("measured", (x + 1) ** 2, x**2 + 2 * x + 1, uses=(d["C1"],))
    with pytest.raises(TypeError, match="uses"):
        d.equal("kind", (x + 1) ** 2, x**2 + 2 * x + 1, uses=("C1",))
    with pytest.raises(KeyError, match="C7"):
        d["C7"]


def test_a_used_claim_brings_no_fact_beyond_its_own_conditions(d):
    d.holds("Positive beyond one", x**3 > x, given=[x > 1])
    with pytest.raises(DerivationError):
        d.holds("Everywhere", x**3 > x, uses=(d["C1"],))


# --- calculations and instances ---------------------------------------------------------------------------------------


def test_steps_of_a_calculation_are_one_bundle_and_counted_apart(d, shown):
    d.equal("First claim", (x + 1) ** 2, x**2 + 2 * x + 1)
    with d.calculation("Squares & cubes"):
        d.equal("Square", (x - 1) ** 2, x**2 - 2 * x + 1)
        d.equal("Cube", (x + 1) ** 3, x**3 + 3 * x**2 + 3 * x + 1)
    d.equal("Second claim", (x + 2) ** 2, x**2 + 4 * x + 4)
    assert [(c.label, c.kind) for c in d.claims] == [("C1", "claim"), ("S1", "step"), ("S2", "step"), ("C2", "claim")]
    assert len(shown) == 3
    group = shown[1]
    assert set(group) == {"text/html", "text/plain", _display.CALCULATION_MIME}
    assert "2 steps of this calculation, all proved" in group["text/plain"]
    assert "Squares &amp; cubes" in group["text/html"]
    assert [step["title"] for step in group[_display.CALCULATION_MIME]["steps"]] == ["Square", "Cube"]


def test_a_false_step_raises_and_the_steps_before_it_are_shown(d, shown):
    def steps():
        with d.calculation("Squares"):
            d.equal("Square", (x - 1) ** 2, x**2 - 2 * x + 1)
            d.equal("Wrong", (x - 1) ** 2, x**2 + 1)

    with pytest.raises(DerivationError):
        steps()
    assert len(shown) == 1
    with pytest.raises(ValueError, match="inside"), d.calculation("Outer"), d.calculation("Inner"):
        pass


def test_an_instance_says_which_size_it_stands_for(d, shown):
    d.equal("Square of a sum", sp.Sum(X[k], (k, 1, 2)) ** 2, (X[1] + X[2]) ** 2, instance="n = 2")
    assert d["C1"].instance == "n = 2"
    assert shown[0]["text/plain"].startswith("[C1 proved for n = 2]")
    assert r"\textsf{proved for n = 2: " in shown[0]["text/latex"]


# --- induction --------------------------------------------------------------------------------------------------------


def test_induction_proves_base_and_step_and_shows_both(d, shown):
    d.induction("Odd numbers", lambda size: sp.Eq(sp.Sum(2 * k - 1, (k, 1, size)), size**2), n)
    assert d["C1"].evidence == "proved"
    assert "by induction" in d["C1"].method
    assert r"\text{base: }" in shown[0]["text/latex"]
    assert r"\text{step: }" in shown[0]["text/latex"]


def test_induction_refuses_a_false_statement_with_the_size(d):
    with pytest.raises(DerivationError, match="n = 2"):
        d.induction("Only at one", lambda size: sp.Eq(sp.Sum(2 * k - 1, (k, 1, size)), size**3), n)
    with pytest.raises(TypeError, match="n"):
        d.induction("Not an integer", lambda size: sp.Eq(size, size), x)
    assert d.claims == ()


def test_induction_from_a_recurrence(d):
    i = sp.Symbol("i", integer=True, nonnegative=True)
    F = sp.Function("F")
    fibonacci = [Recurrence(sp.Eq(F(i + 2), F(i + 1) + F(i)), i), sp.Eq(F(0), 0), sp.Eq(F(1), 1)]
    cassini = lambda size: sp.Eq(F(size + 1) * F(size - 1) - F(size) ** 2, (-1) ** size)
    d.induction("Cassini", cassini, n, given=fibonacci)
    assert d["C1"].evidence == "proved"
    with pytest.raises(DerivationError):
        d.induction("Cassini's sign", lambda size: sp.Eq(cassini(size).lhs, -((-1) ** size)), n, given=fibonacci)


def test_a_bound_on_every_entry(d):
    M = sp.Symbol("M", real=True)
    bounded = [ForEvery(X[k] <= M, (k, 1, n))]
    d.holds("Sum of bounded entries", sp.Sum(X[k], (k, 1, n)) <= n * M, given=bounded)
    assert d["C1"].evidence == "proved"
    with pytest.raises(DerivationError):
        d.holds("Unbounded", sp.Sum(X[k], (k, 1, n)) <= n * M)
    from_zero = [ForEvery(X[k] <= M, (k, 0, n - 1))]
    with pytest.raises(DerivationError, match="false at"):
        d.holds("Too small", sp.Sum(X[k], (k, 0, n - 1)) <= (n - 1) * M, given=from_zero)


# --- display and form -------------------------------------------------------------------------------------------------


def test_assumptions_of_every_unknown_are_displayed(d):
    odd = sp.Symbol("q", odd=True)
    d.equal("Odd", sp.cos(sp.pi * (odd + 1) / 2) ** 2, 1)
    assert r"\text{odd}" in d["C1"].statement
    d.equal("Entries", sp.Sum(2 * X[k], (k, 1, n)), 2 * sp.Sum(X[k], (k, 1, n)))
    assert r"\mathbb{R}" in d["C2"].statement
    A = sp.MatrixSymbol("A", n, m)
    d.equal("Shapes", sp.Trace(A * A.T), sp.Trace(A.T * A))
    assert r"\mathbb{C}^{n \times m}" in d["C3"].statement
    with pytest.raises(ValueError, match="two symbols called x"):
        d.equal("Ambiguous", x + sp.Symbol("x"), sp.Symbol("x") + x + 0 * a + 1)


def test_numbers_too_long_to_print_are_refused(d: Derivation):
    x = sp.Symbol("x", positive=True)
    for call in (
        lambda: d.equal("Powers", x + sp.Integer(10) ** 5000, sp.Integer(10) ** 5000 + x),
        lambda: d.holds("Large", sp.log(x) < x + sp.Integer(10) ** 5000),
        lambda: d.holds("Small", sp.log(x) < x, given=[x > sp.Rational(1, 10**5000)]),
    ):
        with pytest.raises(ValueError, match="more than 4300 digits"):
            call()
    assert not d.claims


FORMS = [
    (sp.Eq(x + 1, 1 + x, evaluate=False), ()),
    (sp.Eq(sp.Derivative(sp.Function("f", real=True)(x), x), y, evaluate=False), (x > 0, sp.Ne(y, 1))),
    (sp.Eq(sp.Sum(X[k] * W[j], (k, 1, n), (j, 1, m)), a, evaluate=False), (sp.Eq(sp.Sum(W[k], (k, 1, n)), 1),)),
    (sp.Implies(x > 1, x**2 > x), ()),
    (sp.Eq(sp.Limit(sp.sin(x) / x, x, 0), 1, evaluate=False), ()),
    (
        sp.Eq(sp.MatrixSymbol("A", n, n).I, sp.Identity(n), evaluate=False),
        (sp.Q.orthogonal(sp.MatrixSymbol("A", n, n)),),
    ),
    (sp.Eq(sp.Matrix([[x, 1], [2, y]]), sp.eye(2), evaluate=False), ()),
    (sp.Eq(sp.Piecewise((x, x > 0), (0, True)), sp.Max(x, 0), evaluate=False), (ForEvery(X[k] <= x, (k, 1, n)),)),
    (sp.Eq(sp.Integral(sp.exp(-a * x**2), (x, -sp.oo, sp.oo)), sp.sqrt(sp.pi / a), evaluate=False), ()),
]


@pytest.mark.parametrize(("statement", "given"), FORMS, ids=range(len(FORMS)))
def test_form_is_read_back_to_the_same_statement(statement, given):
    text = form.write(statement, given)
    again, conditions = form.read(text)[:2]
    assert form.write(again, conditions) == text
    assert sp.srepr(again) == sp.srepr(statement)


def test_form_keeps_what_is_assumed_about_the_values_of_a_function():
    positive = sp.Function("f", positive=True)
    text = form.write(sp.Eq(positive(x), 1))
    assert "Function('f', positive=True)" in text
    assert form.read(text).statement.lhs == positive(x)
    assert form.read(form.write(sp.Eq(sp.Function("f")(x), 1))).statement.lhs.is_positive is None


def test_form_of_a_sum_of_matrices_is_read_where_nothing_else_has_been_imported():
    matrix = sp.MatrixSymbol("A", 2, 2)
    text = form.write(sp.Eq(MatrixSum(matrix**k, (k, 1, n)), matrix, evaluate=False))
    program = f"from kexue_lib.derivation import form; print(form.write(form.read({text!r})[0]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == text


def test_matrix_by_formula_is_displayed_as_entries_in_brackets():
    square, wide = (sp.FunctionMatrix(n, size, sp.Lambda((j, k), j + k)) for size in (n, m))
    assert _display.latex(square) == r"\left[j + k\right]_{0 \leq j, k < n}"
    assert _display.latex(wide) == r"\left[j + k\right]_{0 \leq j < n,\ 0 \leq k < m}"


def test_form_is_the_same_for_other_dummies():
    texts = set()
    for _ in range(2):
        i, j = sp.Dummy("i", integer=True), sp.Dummy("i", integer=True)
        statement = sp.Eq(sp.Sum(X[i] * sp.Sum(X[j], (j, 1, i)), (i, 1, n)), a, evaluate=False)
        texts.add(form.write(statement))
        again = form.read(form.write(statement))[0]
        assert form.write(again) == form.write(statement)
        assert len(again.atoms(sp.Dummy)) == 2
    assert len(texts) == 1


def test_form_keeps_the_order_of_factors_and_terms():
    statement = sp.Eq(sp.exp(-(x**2)) * (2 * a**2) ** (-n / 2) / sp.gamma(n / 2), sp.sqrt(2) * a - n, evaluate=False)
    assert form.read(form.write(statement, ()))[0] == statement  # the same text may be printed of several orders


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "Eq(1, 1)", "Statement()", "Statement(__import__('os').getcwd())", "Statement(open('x'))"],
)
def test_form_reads_statements_only(text):
    with pytest.raises(ValueError, match="text"):
        form.read(text)


def ordered(text):
    """The text with the assumptions of each symbol in order: SymPy prints them as the symbol was first made."""
    return re.sub(r"(?<=', )(\w+=\w+(?:, \w+=\w+)+)", lambda m: ", ".join(sorted(m[0].split(", "))), text)


def test_forms_of_all_claims_of_the_book_are_read_back():
    count = 0
    for path in sorted((ROOT / "chapters").glob("*/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                claim = output.get("data", {}).get(_display.CLAIM_MIME)
                if claim and claim["evidence"] != "measured":
                    assert ordered(form.write(*form.read(claim["form"]))) == ordered(claim["form"]), claim["title"]
                    count += 1
    assert count > 200


# --- no torch, no threads ---------------------------------------------------------------------------------------------

BROWSER = """
import sys, threading, time
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "IPython", "numpy", "matplotlib", "jaxtyping", "beartype"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
def start(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
for name in ("thread_time", "pthread_getcpuclockid"):
    if hasattr(time, name):
        delattr(time, name)
import sympy as sp
from kexue_lib.derivation import Derivation, DerivationError, _time
"""


def in_a_browser(*lines: str) -> str:
    """What a fresh interpreter without threads, clocks of threads and other packages prints."""
    script = "\n".join([BROWSER, *lines])
    path = os.pathsep.join([str(ROOT / "tests" / "derivation"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=500, env=environment, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_time_limit_holds_without_threads():
    printed = in_a_browser(
        "def spin():",
        "    f = lambda: 0",
        "    while True: f()",
        "try: _time.within(0.2, spin)",
        "except _time.OutOfTime: print('stopped')",
        "print(_time.within(5.0, lambda: 7))",
    )
    assert printed.split() == ["stopped", "7"]


def test_pairs_and_doctests_hold_without_threads_and_torch():
    printed = in_a_browser(
        "import doctest, importlib, pkgutil, kexue_lib.derivation as package",
        "failed = 0",
        "for module in pkgutil.iter_modules(package.__path__):",
        "    found = doctest.testmod(importlib.import_module(f'kexue_lib.derivation.{module.name}'),",
        "        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)",
        "    failed += found.failed",
        "print('doctests', failed)",
        "from cases import PAIRS",
        "wrong = []",
        f"for pair in [pair for pair in PAIRS if pair.name not in {sorted(UNDECIDED)!r}][::24]:",
        "    d = Derivation('demo', time_limit=30.0)",
        "    try: pair.true(d, 't')",
        "    except DerivationError as error: wrong.append((pair.name, str(error)))",
        "    try: pair.false(d, 't'); wrong.append((pair.name, 'false, and accepted'))",
        "    except DerivationError: pass",
        "print('wrong', wrong)",
    )
    assert "doctests 0" in printed
    assert "wrong []" in printed


def test_claims_cannot_be_changed(d):
    d.equal("one", (x + 1) ** 2, x**2 + 2 * x + 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        d.claims[0].title = "other"
