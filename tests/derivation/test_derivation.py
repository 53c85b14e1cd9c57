"""Checked steps: no false statement passes, true ones of every kind do, and what is displayed says what was done."""

import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout, suppress

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch

from kexue_lib.derivation import Claim, Derivation, DerivationError, VacuousClaim
from kexue_lib.derivation import _display as show
from kexue_lib.derivation._balls import lower, sub, upper
from kexue_lib.derivation._enclosure import enclose
from kexue_lib.derivation._points import Domain
from kexue_lib.derivation._time import OutOfTime, within
from kexue_lib.derivation._unknowns import admits

x, y = sp.symbols("x y", real=True)
a, b = sp.symbols("a b", positive=True)
n = sp.Symbol("n", integer=True, positive=True)
k = sp.Symbol("k", integer=True)


# --- truth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lhs", "rhs"),
    [
        (sp.sqrt(x**2 + 1), x),
        (sp.log(x**2), 2 * sp.log(x)),
        (sp.Abs(x + y), sp.Abs(x) + sp.Abs(y)),
        (sp.exp(x + y), sp.exp(x) + sp.exp(y)),
        (sp.sin(x) ** 2, 1 + sp.cos(x) ** 2),
    ],
)
def test_counterexample_violates_the_statement(d, lhs, rhs):
    with pytest.raises(DerivationError) as refused:
        d.equal("wrong", lhs, rhs)
    point = refused.value.counterexample
    assert set(point) == (lhs.free_symbols | rhs.free_symbols)
    left, right = complex(lhs.subs(point)), rhs.subs(point)
    assert not right.is_finite or abs(left - complex(right)) > 1e-9


def test_assumptions_decide(d):
    z = sp.Symbol("z")
    d.equal("root of a positive square", sp.sqrt(a**2 + 2 * a + 1), 1 + a)
    for value in (x, z):
        with pytest.raises(DerivationError):
            d.equal(f"root {value}", sp.sqrt(value**2 - 2 * value + 1), value - 1)
    with pytest.raises(DerivationError):  # true on the real line only
        d.equal("modulus", sp.Abs(z) ** 2, z**2)
    with pytest.raises(DerivationError):
        d.equal("complex powers", sp.log(sp.exp(z) * sp.exp(z)), 2 * z)


def test_undefined_is_never_equal(d):
    with pytest.raises(DerivationError) as refused:
        d.equal("cancelled", (x**2 - 1) / (x - 1), x + 1)
    assert refused.value.counterexample == {x: 1}
    with pytest.raises(ValueError, match="NaN"):
        d.equal("nan", sp.nan, x)
    with pytest.raises(DerivationError):
        d.measured("nan", math.nan, math.nan)
    with pytest.raises(DerivationError):
        d.holds("a logarithm that does not exist", sp.log(x) < x)


def test_strict_inequality_that_fails_where_both_sides_meet_is_refused_with_that_point(d):
    with pytest.raises(DerivationError) as refused:
        d.holds("strict", sp.exp(x) > 1 + x)
    assert refused.value.counterexample == {x: 0}
    with pytest.raises(DerivationError) as refused:
        d.holds("strict", (a + b) / 2 > sp.sqrt(a * b))
    assert refused.value.counterexample[a] == refused.value.counterexample[b]
    with pytest.raises(DerivationError) as refused:
        d.holds("irrational", x**4 - 4 * x**2 + 4 > 0)
    assert abs(abs(refused.value.counterexample[x]) - sp.sqrt(2)) < 1e-20


def test_sums_reach_the_empty_sum_and_the_first_terms(d):
    m = sp.Symbol("m", integer=True, nonnegative=True)
    with pytest.raises(DerivationError) as refused:
        d.equal(
            "false only for the empty sum",
            sp.Sum(2 * k, (k, 1, m)),
            m * (m + 1) + sp.Piecewise((1, sp.Eq(m, 0)), (0, True)),
        )
    assert refused.value.counterexample == {m: 0}
    with pytest.raises(DerivationError) as refused:
        d.equal("false only at two", sp.Sum(k, (k, 1, n)), n * (n + 1) / 2 + sp.KroneckerDelta(n, 2))
    assert refused.value.counterexample == {n: 2}


def test_unknown_functions_and_indexed_unknowns(d):
    f = sp.Function("f", real=True)
    X = sp.IndexedBase("X", real=True)
    d.equal("chain rule", sp.Derivative(f(x) ** 2, x), 2 * f(x) * sp.Derivative(f(x), x))
    d.equal("square of a sum", sp.Sum(X[k], (k, 1, 2)) ** 2, X[1] ** 2 + 2 * X[1] * X[2] + X[2] ** 2)
    with pytest.raises(DerivationError) as refused:
        d.equal("square of a sum", sp.Sum(X[k], (k, 1, n)) ** 2, sp.Sum(X[k] ** 2, (k, 1, n)))
    assert any(isinstance(key, sp.Indexed) for key in refused.value.counterexample)


def test_conditions_are_honoured(d):
    p, q = sp.symbols("p q", positive=True)
    simplex = [sp.Eq(p + q, 1)]
    d.holds("product on the simplex", p * q <= sp.Rational(1, 4), given=simplex)
    with pytest.raises(DerivationError) as refused:
        d.holds("product on the simplex", p * q <= sp.Rational(6, 25), given=simplex)
    point = refused.value.counterexample
    assert point[p] + point[q] == 1
    d.equal("one condition, not in a list", (p + q) ** 2, 1, given=sp.Eq(p + q, 1))
    with pytest.raises(DerivationError):
        d.equal("the condition is needed", (p + q) ** 2, 1)
    with pytest.raises(DerivationError) as refused:  # dividing by a would lose a = 0
        d.equal("division by zero", x, y, given=[sp.Eq(y * x, y**2)])
    assert refused.value.counterexample is not None


def test_matrices_of_symbolic_shape(d):
    m = sp.Symbol("m", integer=True, positive=True)
    A, B = sp.MatrixSymbol("A", n, m), sp.MatrixSymbol("B", m, n)
    d.equal("trace of a Gram matrix", sp.Trace((A * B).T * (A * B)), sp.Trace(A * B * B.T * A.T))
    with pytest.raises(ValueError, match="shape"):
        d.equal("shapes", A, B)
    with pytest.raises(ValueError, match="matrix"):
        d.equal("kinds", A, sp.Integer(1))
    with pytest.raises(DerivationError):
        d.equal("commutes", A * B, B.T * A.T)


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_nothing_to_check_is_vacuous(d):
    for refuse in (
        lambda: d.equal("same", x + x, 2 * x),
        lambda: d.holds("true", sp.true),
        lambda: d.holds("automatic", sp.exp(x) > 0),
        lambda: d.holds("same", sp.Eq(x, x, evaluate=False)),
        lambda: d.holds("contradiction", x > 5, given=[x > 1, x < 0]),
        lambda: d.equal("false condition", x, y, given=[sp.false]),
        lambda: d.measured("itself", *[torch.ones(2)] * 2),
        lambda: d.measured("nothing", torch.ones(0), torch.ones(0)),
    ):
        with pytest.raises(VacuousClaim):
            refuse()
    with pytest.raises(DerivationError, match="False"):
        d.holds("false", sp.false)
    assert d.claims == ()


def test_too_few_points_are_no_pass(d):
    with pytest.raises(DerivationError, match="point"):
        d.holds("needle", sp.floor(sp.sin(x) + x) <= x + 1, given=[sp.Eq(sp.floor(x * 10**9) % 977, 1)])


def test_floats_are_never_proved(d):
    d.equal("half", x / 2 + sp.Rational(1, 4), 0.5 * (x + 0.5))
    assert d.claims[0].evidence == "checked"


def test_slow_proof_falls_through_to_checked():
    d = Derivation("demo", time_limit=0.3)
    integral = sp.Integral(sp.exp(-(x**2)) * sp.cos(sp.sin(x)), (x, 0, 1))
    start = time.process_time()
    d.equal("slow", integral, integral.transform(x, 1 - x))
    assert d.claims[0].evidence == "checked"
    assert time.process_time() - start < 10


def test_time_limit_spares_destructors():
    finished = []

    class Slow:
        def __del__(self):
            end = time.thread_time() + 0.3
            while time.thread_time() < end:
                pass
            finished.append(True)

    def work():
        Slow()
        while True:
            pass

    with pytest.raises(OutOfTime):
        within(0.1, work)
    assert finished == [True]


def test_time_limit_counts_only_this_threads_work_and_never_leaks():
    def spin():
        while True:
            pass

    for seconds in (1e-6, 0.01, 0.1) * 3:
        with pytest.raises(OutOfTime):
            within(seconds, spin)
    assert within(0.05, time.sleep, 0.3) is None  # sleeping takes no CPU time
    for _ in range(300):  # the deadline falls into the end of the computation
        with suppress(OutOfTime):
            within(1e-4, sum, range(2000))
        sum(range(200))

    def swallowing():
        while True:
            try:
                spin()
            except BaseException as error:  # what a destructor or a careless library does
                if isinstance(error, OutOfTime) and time.thread_time() > stop:
                    raise

    stop = time.thread_time() + 0.2
    with pytest.raises(OutOfTime):
        within(0.01, swallowing)
    assert within(1.0, lambda: 7) == 7


def test_works_in_another_thread():
    results = []

    def work():
        d = Derivation("demo")
        d.equal("squares", (x + y) ** 2, x**2 + 2 * x * y + y**2)
        try:
            within(0.02, lambda: [None for _ in iter(int, 1)])
        except OutOfTime:
            results.append("stopped")
        results.append(d.claims[0].evidence)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert results == ["stopped", "proved"]


def test_labels_follow_success(d):
    d.equal("one", (x + 1) ** 2, x**2 + 2 * x + 1)
    with pytest.raises(DerivationError):
        d.equal("wrong", (x + 1) ** 2, x**2)
    d.define("No claim", a, x)
    d.measured("two", 1.0, 1)
    assert [(claim.label, claim.title) for claim in d.claims] == [("C1", "one"), ("C2", "two")]
    assert set(d.timings) == {"C1", "C2"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        d.claims[0].title = "other"
    assert [field.name for field in dataclasses.fields(Claim)] == [
        "chapter", "label", "title", "statement", "evidence", "scope", "method", "kind", "instance", "uses", "form",
    ]  # fmt: skip


def test_return_values(d):
    rhs = sp.Matrix([[x**2 + 2 * x + 1]])
    assert d.equal("rhs", sp.Matrix([[(x + 1) ** 2]]), rhs) is rhs
    statement = x**2 - 2 * x + 2 > 0
    assert d.holds("statement", statement) is statement
    tensor = torch.tensor([1.0, 2.0])
    assert d.measured("tensor", tensor, [1, 2]) is tensor
    assert d.define("definition", a, rhs) is rhs
    assert d.verdict("row", claimed="1", obtained="1", verdict="reproduced") is None


# --- measured ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (1.0, 1),
        (torch.tensor(2.0, requires_grad=True), 2.0),
        (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([1.0, 2.0])),
        (np.float32(0.5), sp.Rational(1, 2)),
        (np.eye(2), torch.eye(2)),
        (np.zeros(3), 0.0),
        (math.pi, sp.pi),
        (complex(0, 1), sp.I),
    ],
)
def test_measured_accepts_numbers_of_every_kind(d, observed, expected):
    d.measured("run", observed, expected)
    assert d.claims[0].evidence == "measured"


def test_measured_refuses_what_is_off(d):
    for observed, expected, tolerance in (
        (1.1, 1.0, {"rtol": 0.05}),
        (torch.tensor([1.0, 2.0, 3.0]), [1.0, 2.0, 3.1], {}),
        (math.inf, math.inf, {}),
        (1.0, math.nan, {"atol": 1.0}),
        (1e-9, 0.0, {}),
    ):
        with pytest.raises(DerivationError):
            d.measured("off", observed, expected, **tolerance)
    with pytest.raises(ValueError, match="observed"):
        d.measured("shape", [1, 2, 3], [1, 2])
    for wrong in ("1", True, None, object()):
        with pytest.raises(TypeError, match="observed"):
            d.measured("kind", wrong, 1.0)
    for tolerance in ({"rtol": -1.0}, {"atol": math.nan}, {"rtol": math.inf}):
        with pytest.raises(ValueError, match="tol"):
            d.measured("tolerance", 1.0, 1.0, **tolerance)


def test_measured_compares_shapes_and_whole_numbers_exactly(d):
    with pytest.raises(ValueError, match="shape"):
        d.measured("transposed", np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2))
    with pytest.raises(ValueError, match="shape"):
        d.measured("a number for a table", 1.0, [1.0, 1.0])
    with pytest.raises(DerivationError):
        d.measured("beyond the digits of a float", 2**60 + 1, 2**60, rtol=0)
    d.measured("beyond the range of a float", 10**400, 10**400, rtol=0)
    d.measured("one number for all", np.full((2, 3), 7), 7, rtol=0)


def test_measured_statement_does_not_depend_on_the_machine(shown):
    for observed in (0.4999, 0.5001):
        Derivation("demo").measured("slope", observed, 0.5, rtol=1e-2)
    assert shown[0] == shown[1]
    assert "1 %" in shown[0][show.CLAIM_MIME]["method"]


@pytest.mark.parametrize(
    ("expected", "tolerances", "statement"),
    [
        (0.5, {"rtol": 1e-2}, r"\text{observed within } 1\,\% \text{ of } 0.5"),
        (2.5, {"rtol": 0, "atol": 0.025}, r"\text{observed within } 0.025 \text{ of } 2.5"),
        (sp.pi, {"rtol": 1e-9, "atol": 2e-9}, r"\text{observed within } 10^{-7}\,\% + 2 \cdot 10^{-9} \text{ of } \pi"),
        (0.0, {"atol": 1e-14}, r"|\text{observed}| \le 10^{-14}"),
        (3, {"rtol": 0}, r"\text{observed exactly: } 3"),
    ],
)
def test_measured_statement_says_how_close_the_run_came(d, shown, expected, tolerances, statement):
    d.measured("run", float(expected), expected, **tolerances)
    assert shown[0][show.CLAIM_MIME]["statement"] == statement


# --- display ----------------------------------------------------------------------------------------------------------


def steps(d: Derivation) -> None:
    d.equal(r"Sum_of 100% & $\alpha_i$ #1", sp.Sum(k, (k, 1, n)), n * (n + 1) / 2, scope="n_max = 3")
    d.holds("Means", (a + b) / 2 >= sp.sqrt(a * b), given=[a >= b])
    d.equal("No proof", sp.floor(n / 2) + sp.ceiling(n / 2), n)
    d.equal(
        "Long", sum(sp.exp(i * x) for i in range(9)) ** 2, sum(sp.exp((i + j) * x) for i in range(9) for j in range(9))
    )
    d.measured("Run", 2.5e-7, 2.5e-7, atol=1e-9)
    d.define("Energy", sp.Symbol("E_k"), x**2 / 2)
    d.verdict("Speed", claimed="6x", obtained="4x", verdict="does not hold", why="another machine")


@pytest.fixture(scope="module")
def bundles():
    """What `steps` displays, and its claims."""
    with pytest.MonkeyPatch.context() as patch:
        shown = []
        patch.setattr(show, "publish", shown.append)
        d = Derivation("demo")
        steps(d)
    return shown, d


def test_bundles_have_exactly_the_promised_keys_and_are_json(bundles):
    shown, d = bundles
    json.dumps(shown)
    claims = [bundle for bundle in shown if show.CLAIM_MIME in bundle]
    assert [bundle[show.CLAIM_MIME] for bundle in claims] == [
        dataclasses.asdict(claim) | {"uses": list(claim.uses)} for claim in d.claims
    ]
    for bundle in claims:
        assert set(bundle) == {"text/latex", "text/plain", show.CLAIM_MIME}
        assert set(bundle[show.CLAIM_MIME]) == {field.name for field in dataclasses.fields(Claim)}
        claim = bundle[show.CLAIM_MIME]
        assert bundle["text/plain"].startswith(f"[{claim['label']} {claim['evidence']}] {claim['title']}: ")
    assert re.search(r"(\d+) points", d.claims[2].method)[1] >= "20"
    definition, verdict = shown[-2:]
    assert set(definition) == {"text/latex", "text/plain"}
    assert set(verdict) == {"text/markdown", "text/plain", show.VERDICT_MIME}
    assert set(verdict[show.VERDICT_MIME]) == {"chapter", "title", "claimed", "obtained", "verdict", "why"}


def test_latex_is_one_formula_that_mathjax_can_typeset(bundles):
    shown, _ = bundles
    for bundle in shown:
        source = bundle.get("text/latex", "$x$")
        assert source[0] == source[-1] == "$"
        body = source[1:-1]
        assert "$" not in body
        assert "\n\n" not in body
        bare = re.sub(r"\\[{}]", "", body)
        assert bare.count("{") == bare.count("}")
        depth = 0
        for character in bare:
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert depth >= 0
        assert body.count(r"\begin") == body.count(r"\end")
        for words in re.findall(r"\\text(?:bf|sf|)\{([^{}]*)\}", body):
            assert not set("_%#&$^\\~") & set(words), words
        assert not set("%#") & set(re.sub(r"\\[%#]", "", body))


def test_long_equation_breaks_at_the_relation(bundles):
    shown, _ = bundles
    long = next(b for b in shown if "Long" in b["text/plain"])
    assert r"\\ \displaystyle \quad {} =" in long["text/latex"]
    assert r"\\ \displaystyle \quad {} =" in long[show.CLAIM_MIME]["statement"]


def test_statement_says_its_domain_and_conditions(bundles):
    statement = bundles[1].claims[1].statement
    assert r"a \geq b" in statement
    assert "a, b > 0" in statement


def run_python(*lines: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    script = "\n".join(lines)
    env = os.environ | environment
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_silent_outside_of_ipython():
    out = io.StringIO()
    with redirect_stdout(out):
        Derivation("demo").define("Energy", a, x**2 / 2)
    assert out.getvalue() == ""


def test_displayed_inside_ipython():
    printed = run_python(
        "from IPython.core.interactiveshell import InteractiveShell",
        "from IPython.utils.capture import capture_output",
        "import sympy as sp; from kexue_lib.derivation import Derivation",
        "InteractiveShell.instance(); x = sp.Symbol('x', real=True)",
        "with capture_output() as got: Derivation('demo').equal('One', (x + 1)**2, x**2 + 2*x + 1)",
        "print(*sorted(got.outputs[0].data))",
    )
    assert printed.split() == ["application/vnd.kexue.claim+json", "text/latex", "text/plain"]


def test_import_needs_sympy_only():
    run_python(
        "import sys",
        "class Block:",
        "    def find_spec(self, name, path=None, target=None):",
        "        blocked = ('torch', 'IPython', 'numpy', 'matplotlib', 'jaxtyping')",
        "        if name.split('.')[0] in blocked: raise ImportError(name)",
        "sys.meta_path.insert(0, Block())",
        "import sympy as sp; from kexue_lib.derivation import Derivation",
        "x = sp.Symbol('x', real=True); d = Derivation('demo')",
        "d.equal('t', (x + 1) ** 2, x**2 + 2*x + 1); d.measured('m', 1.0, 1)",
    )


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_named_in_errors(d):
    for call, kind, name in (
        (lambda: Derivation("Not a slug"), ValueError, "chapter"),
        (lambda: Derivation("demo", time_limit=0), ValueError, "time_limit"),
        (lambda: Derivation("demo", time_limit=math.nan), ValueError, "time_limit"),
        (lambda: d.equal("", x, y), ValueError, "title"),
        (lambda: d.equal("kind", x, x < y), TypeError, "rhs"),
        (lambda: d.equal("kind", object(), x), TypeError, "lhs"),
        (lambda: d.holds("kind", x), TypeError, "statement"),
        (lambda: d.equal("kind", x, y, given=[x]), TypeError, "given"),
        (lambda: d.verdict("v", claimed="1", obtained="2", verdict="true"), ValueError, "verdict"),
        (lambda: d.verdict("v", claimed="", obtained="2", verdict="reproduced"), ValueError, "claimed"),
    ):
        with pytest.raises(kind, match=name):
            call()
    for call, name in (
        (lambda: Derivation(3), "chapter"),
        (lambda: d.equal(3, x, y), "title"),
        (lambda: d.equal("t", x, y, scope=3), "scope"),
        (lambda: d.verdict("v", claimed=1, obtained="2", verdict="reproduced"), "claimed"),
    ):
        with pytest.raises(Exception, match=name):
            call()


# --- points -----------------------------------------------------------------------------------------------------------


def test_points_satisfy_assumptions_and_conditions():
    p, q = sp.symbols("p q", positive=True)
    even = sp.Symbol("m", even=True)
    z = sp.Symbol("z", imaginary=True)
    conditions = [sp.Eq(p + q, 1), x < y]
    domain = Domain(sp.Eq(p * q + x * y + even, z, evaluate=False), conditions)
    points = list(domain.points(12))
    assert len(points) == 12
    for point in points:
        assert all(admits(symbol, value) for symbol, value in point.items())
        assert point[p] + point[q] == 1
        assert point[x] < point[y]


def test_points_cover_the_domain():
    z = sp.Symbol("z")
    points = list(Domain(sp.Eq(z, x, evaluate=False), []).points(90))
    assert any(point[z].has(sp.I) for point in points)
    assert {sp.sign(point[x]) for point in points} == {-1, 0, 1}
    assert any(point[z] == point[x] for point in points)
    sizes = [abs(point[x]) for point in points if point[x] != 0]
    assert max(sizes) > 10**6
    assert min(sizes) < sp.Rational(1, 10**6)


def test_points_are_aimed_at_what_the_statement_singles_out():
    statement = sp.Eq(sp.log(x - 7) * sp.Abs(y + 2000), sp.Piecewise((x, x < sp.exp(10)), (y, True)), evaluate=False)
    points = list(Domain(statement, []).points(90))
    for symbol, edge in ((x, 7), (y, -2000), (x, sp.exp(10))):
        assert any(point[symbol] == edge for point in points)
        assert any(point[symbol] > edge for point in points)
        assert any(point[symbol] < edge for point in points)


def test_points_do_not_depend_on_the_title():
    statement = sp.Eq(x * y, a, evaluate=False)
    assert list(Domain(statement, []).points(30)) == list(Domain(statement, []).points(30))


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (sp.Integral(sp.exp(-(x**2)), (x, -sp.oo, sp.oo)), sp.sqrt(sp.pi)),
        (sp.Integral(sp.log(x), (x, 0, 1)), sp.Integer(-1)),
        (sp.Integral(1 / sp.sqrt(x), (x, 0, 4)), sp.Integer(4)),
        (sp.Integral(sp.sin(x) / x, (x, 0, sp.oo)), sp.pi / 2),
        (sp.Integral(sp.Abs(x - sp.Rational(1, 3)), (x, -1, 1)), sp.Rational(10, 9)),
        (sp.Integral(x * y, (x, 0, y), (y, 0, 1)), sp.Rational(1, 8)),
        (sp.Integral(sp.cos(x), (x, 1, 0)), -sp.sin(1)),
        (sp.Limit(sp.sin(x) / x, x, 0), sp.Integer(1)),
        (sp.Limit((1 + 1 / x) ** x, x, sp.oo), sp.E),
        (sp.Sum(1 / k**2, (k, 1, sp.oo)), sp.pi**2 / 6),
        (sp.Sum(k, (k, 3, 0)), sp.Integer(-3)),  # Karr's convention: minus the terms 1 and 2
        (sp.Product(k, (k, 1, 0)), sp.Integer(1)),
    ],
)
def test_numbers_are_right_to_all_digits_asked_for(expression, value):
    assert differs_from(expression, {}, value) == 0


def test_a_value_for_a_symbol_does_not_reach_bound_variables():
    integral = sp.Integral(x * y, (x, 0, 1))
    assert differs_from(integral, {x: sp.Integer(5), y: sp.Integer(4)}, sp.Integer(2)) == 0


def differs_from(expression, point, value):
    """How far the enclosure of an expression is from a value: 0 if it holds it, and is no wider than 1e-14."""
    gap = sub(enclose(expression, point, 30), enclose(value, {}, 30), 100)
    assert mpmath.mp.make_mpf(upper(gap)) <= 2e-14
    return mpmath.mp.make_mpf(lower(gap))
