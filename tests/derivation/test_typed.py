"""Statements as readers type them: read, printed, refused; and what a page answers."""

import json
from pathlib import Path

import pytest
import sympy as sp

from kexue_lib.derivation import ForEvery, Recurrence, answers, form, typed
from kexue_lib.derivation._display import CALCULATION_MIME, CLAIM_MIME

ROOT = Path(__file__).resolve().parents[2]
x, y = sp.symbols("x y", real=True)
n = sp.Symbol("n", integer=True, positive=True)
k = sp.Symbol("k", integer=True)
a = sp.IndexedBase("a", real=True)
A = sp.MatrixSymbol("A", n, n)
f = sp.Function("f", real=True)

STATEMENTS = [
    ("x: real", "x^2 >= 2*x - 1", sp.Ge(x**2, 2 * x - 1, evaluate=False)),
    ("x, y: real", "x != y", sp.Ne(x, y, evaluate=False)),
    ("x: real", "0.5*x < 1/3", sp.Lt(x / 2, sp.Rational(1, 3), evaluate=False)),
    ("x: real", "abs(x) ≤ max(x, −x)", sp.Le(sp.Abs(x), sp.Max(x, -x), evaluate=False)),
    ("x: real", "Implies(x > 1, x^2 > 1)", sp.Implies(x > 1, x**2 > 1)),
    ("x: real", "-1 < x < 1", sp.And(sp.Lt(-1, x, evaluate=False), x < 1)),
    (
        "k: integer\nn: integer, positive\na: indexed, real",
        "Sum(a[k], (k, 1, n)) = 0",
        sp.Eq(sp.Sum(a[k], (k, 1, n)), 0),
    ),
    (
        "n: integer, positive\nA: matrix (n, n)",
        "(A*A).T = A.T*A.T",
        sp.Eq(sp.Transpose(sp.MatMul(A, A)), sp.MatMul(A.T, A.T), evaluate=False),
    ),
    ("x: real\nf: function, real", "Derivative(f(x), x) = f(x)", sp.Eq(sp.Derivative(f(x), x), f(x))),
    ("x: real", "Limit(sin(x)/x, x, 0, dir='+') = 1", sp.Eq(sp.Limit(sp.sin(x) / x, x, 0, "+"), 1, evaluate=False)),
    (
        "x: real",
        "Piecewise((x, x > 0), (0, True)) = max(x, 0)",
        sp.Eq(sp.Piecewise((x, x > 0), (0, True)), sp.Max(x, 0)),
    ),
]


@pytest.mark.parametrize(("symbols", "text", "statement"), STATEMENTS, ids=range(len(STATEMENTS)))
def test_a_statement_is_read_as_it_is_meant(symbols, text, statement):
    assert typed.read(typed.Typed(symbols, "", text))[0] == statement


@pytest.mark.parametrize(
    ("symbols", "given", "statement", "place", "words"),
    [
        ("x: rael", "", "x = 1", ("symbols", 1, 1), "no kind"),
        ("x real", "", "x = 1", ("symbols", 1, 1), "colon"),
        ("x: positive, negative", "", "x = 1", ("symbols", 1, 1), "cannot be"),
        ("x: real\nA: matrix (x)", "", "x = 1", ("symbols", 2, 1), "two sizes"),
        ("x: real", "x >", "x = 1", ("conditions", 1, None), "syntax"),
        ("x: real", "x > 0\nx + 1", "x = 1", ("conditions", 2, 1), "this is a value"),
        ("x: real", "", "x + z = 1", ("statement", 1, 5), "z is not declared"),
        ("x: real", "", "sin(x", ("statement", 1, 4), "never closed"),
        ("x: real", "", "x = (1 +", ("statement", 1, 5), "never closed"),
        ("x: real", "", "  x^2 = x^2 + z", ("statement", 1, 15), "z is not declared"),
        ("x: real", "", "", ("statement", 1, 1), "there is none"),
        ("x: real", "", "x.subs(x, 1) = 1", ("statement", 1, 1), ".subs"),
        ("x: real", "", "x(2) = 1", ("statement", 1, 1), "product"),
        ("x: real", "", "[x for x in (1, 2)] = 1", ("statement", 1, 1), "no part"),
        ("x: real", "", "'x' = 1", ("statement", 1, 1), "no number"),
        ("x: real", "", "Symbol = 1", ("statement", 1, 1), "not declared"),
        ("x: real", "", "sin(x, x) = 1", ("statement", 1, 1), "SymPy refuses"),
        ("x: real", "", "lambdify(x) = 1", ("statement", 1, 1), "not declared"),
        ("x: real", "", "Q.__class__(x)", ("statement", 1, 1), "no predicate"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(symbols, given, statement, place, words):
    with pytest.raises(typed.TypedError, match=words) as caught:
        typed.read(typed.Typed(symbols, given, statement))
    found = (caught.value.field, caught.value.line, caught.value.column)
    assert all(wanted in (None, got) for wanted, got in zip(place, found)), found


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        (sp.Eq(sp.Symbol("lambda", positive=True) + sp.Symbol("theta^*"), 1), ()),
        (sp.Ge(sp.Sum(a[k], (k, 1, n)), 0), (ForEvery(a[k] >= 0, (k, 1, n)),)),
        (sp.Eq(sp.MatrixSymbol("Q", n, n).inv() * A, A), (sp.Q.invertible(sp.MatrixSymbol("Q", n, n)),)),
        (sp.Eq(f(k + 2), f(k)), (Recurrence(sp.Eq(f(k + 1), f(k)), k),)),
        (sp.Eq(sp.Symbol("E") + sp.E, sp.Symbol("I") * sp.I), ()),
        (sp.Eq(sp.Dummy("x"), x), ()),
    ],
)
def test_what_is_printed_is_read_back(statement, given):
    text = typed.write(statement, given)
    again = typed.write(*typed.read(text)[:2])
    assert again == text


def test_every_claim_of_the_book_can_be_edited():
    count = 0
    for path in sorted((ROOT / "chapters").glob("*/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                for claim in [data.get(CLAIM_MIME), *data.get(CALCULATION_MIME, {}).get("steps", [])]:
                    if claim and claim["form"]:
                        typed.read(typed.Typed(**answers.editable(claim["form"])))
                        count += 1
    assert count > 200


@pytest.mark.parametrize(
    ("symbols", "given", "statement", "answer"),
    [
        ("x: real", "", "x^2 >= 0", "proved"),
        ("x: real", "x > 1", "x^3 > x", "proved"),
        ("x: real", "", "x^2 >= x", "false"),
        ("x: real", "", "1/x^2 > 0", "undefined"),
        ("x: real", "", "x + x = 2*x", "nothing to check"),
        ("x: real", "x > 1\nx < 0", "x = 5", "nothing to check"),
        ("x: real", "", "x^2 >=", "unreadable"),
        ("x: real", "", "1 = 2", "false"),
        ("", "", "log(0.9) = log(9/10)", "nothing to check"),  # decimals are exact
        ("", "", "cos(0.1) > cos(1/10)", "false"),
        ("x: real", "", "x*(x - 1)/(x - 1) <= x", "undefined"),  # SymPy cancels the pole while it reads
        ("x: real", "", "x/x = 1", "undefined"),
        ("x: real", "x != 0", "x^2/x = x + 1", "false"),
        ("x: real", "", "9^9^9 > x", "unreadable"),
        ("x: real", "", "factorial(10^7) > x", "unreadable"),
        ("x: real", "", "2^1000 > 10^300", "proved"),
        ("x, y: real", "x^2 + y^2 = 1", "x*y <= 1/2", "proved"),
        ("x: positive", "", "x/x = 1", "nothing to check"),
        ("", "", "0/0 = 0/0", "unreadable"),
        ("x: real", "", "x >= 0 | x < 0", "unreadable"),  # Python's | binds tighter than its comparisons
        ("x, y: real", "", "Implies(x^2 = y^2, x = y)", "false"),
        ("n: integer, positive\nA, B: matrix (n, n)", "", "det(A + B) = det(A) + det(B)", "false"),
        ("n: integer, positive\nA: matrix (n, n)", "", "A[0, 1] = A[1, 0]", "false"),
        ("A: matrix (-1, 2)", "", "A = 2*A", "unreadable"),
        ("A: matrix (10^6, 10^6)", "", "A = A.T", "unreadable"),
        ("x: real\nf: function, real", "", "f(x, x) >= f(x)", "unreadable"),
        ("x: real", "", "(" * 300 + "x" + ")" * 300 + " = 1", "unreadable"),
        ("x: real", "", "+".join(["x"] * 900) + " = 900*x", "nothing to check"),
        ("x: real", "", "2x + 3 (x + 1) = 5 x + 3", "nothing to check"),
        ("x: real", "", "x > 2 or x < 3 and x^3 > 1", "false"),
        ("lambda: positive", "", "lambda^2 + 1 > 0", "proved"),
        (
            "a: indexed, real\nn: integer, positive",
            "",
            "sum(a[k]^2, (k, 1, n)) >= 0",
            "proved",
        ),  # k needs no declaration
    ],
    ids=str,
)
def test_a_changed_statement_is_decided(symbols, given, statement, answer):
    found = answers.changed(symbols, given, statement)
    assert found["answer"] == answer, found
    json.dumps(found)


def test_a_counterexample_is_one_that_a_reader_can_put_in():
    found = answers.changed("x, y: real", "x > y", "x^3 < y + 1")
    values = {name: sp.sympify(value) for name, value in found["values"]}
    assert values["x"] > values["y"]
    assert not values["x"] ** 3 < values["y"] + 1
    assert all(abs(value) <= 3 for value in values.values())
    assert r"\class{put-in}" in found["formula"]


def test_a_counterexample_in_matrices_shows_what_both_sides_come_to():
    found = answers.changed("n: integer, positive\nA, B: matrix (n, n)", "", "A*B = B*A")
    assert {name for name, _ in found["values"]} == {"n", "A", "B"}
    left, right = found["formula"].split(r"\neq")
    assert left.strip().startswith("A B =")
    assert right.strip().endswith("= B A")
    assert left.split("=")[1].strip() != right.split("=")[0].strip()


def test_a_claim_by_induction_and_one_with_facts_are_decided_again():
    total = sp.Eq(sp.Sum(k**2, (k, 1, n)), n * (n + 1) * (2 * n + 1) / 6)
    assert answers.again(form.write(total, (sp.Ge(n, 1),), (), (n, sp.Integer(1))))["answer"] == "proved"
    false = sp.Eq(sp.Sum(k**2, (k, 1, n)), n * (n + 1) / 2)
    assert answers.again(form.write(false, (), (), (n, sp.Integer(1))))["answer"] == "false"
    resting = form.write(x**4 >= 1, (x > 1,), (sp.Ge(x**2, 1),))
    assert answers.again(resting, ["checked"])["answer"] == "checked"
    assert answers.again(resting, ["proved"])["answer"] == "proved"


@pytest.mark.parametrize(
    ("kind", "answer", "wanted", "mark"),
    [
        ("expression", "(x + 1)^2", "x^2 + 2*x + 1", "proved"),
        ("expression", "x^2 + 1", "x^2 + 2*x + 1", "false"),
        ("expression", "x^2 +", "x^2 + 2*x + 1", "unreadable"),
        ("expression", "x > 1", "x", "unreadable"),
        ("statement", "x > 1", "2*x > 2", "proved"),
        ("statement", "x >= 1", "x^3 > 1", "false"),
        ("expression", "0.5*x", "x/2", "proved"),
        ("expression", "[1, 2]", "x/2", "unreadable"),
        ("expression", "z", "x/2", "unreadable"),
    ],
)
def test_an_answer_is_marked(kind, answer, wanted, mark):
    assert answers.exercise(kind, answer, "x: real", "", wanted)["answer"] == mark


@pytest.mark.parametrize(
    "example", json.loads((ROOT / "_static/live/examples.json").read_text(encoding="utf-8")), ids=lambda e: e["title"]
)
def test_the_examples_get_the_answer_that_they_are_there_to_show(example):
    assert answers.changed(example["symbols"], example["given"], example["statement"])["answer"] == example["answer"]
