"""Every true statement of the table is accepted, every near miss is refused, whatever the step is called."""

import functools
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import PAIRS, Pair, Step

from kexue_lib.derivation import Derivation, DerivationError, VacuousClaim
from kexue_lib.derivation import _display as show
from kexue_lib.derivation._deciding import decide, decide_induction
from kexue_lib.derivation._unknowns import Entries

# Statements that no proof is known for: they are checked, and must not silently become "proved" either.
OPEN = {
    *("ten digits are not enough", "floor of halves", "no closed form", "even or odd"),
    *("determinant of the inverse", "Householder", "normalised by the root mean square", "period of the tangent"),
    *("jump of the arc cotangent", "far branch of a sum", "floor after cancellation", "branch cut"),
    *("limit of alternating signs", "shifted gamma", "series of waves", "waves that do not die out", "infinite sum"),
    *("rate of an exponential series", "Fourier series", "squared sinc", "roots of a condition"),
    *("determinant of a definite matrix", "divergence of two coins", "half circle over a bell"),
    *("root times root of the reciprocal", "odd integrand", "beta integral", "arch left of zero"),
    *("product of two waves", "sign of an antiderivative", "ellipse in polar form", "base that vanishes"),
    *("floor below one", "floor of a reciprocal", "three linear factors", "hypergeometric series at one"),
    *("series that ends", "row of two", "alternating products of binomials", "arrangements"),
    *("quotients of factorials", "sum over all integers", "positive terms", "sine undone", "cosine undone"),
    *("angle on the real line", "angle of the diagonal", "half of the angle", "phase of a filter"),
    *("remainder of the negative", "nested remainders", "remainder of a remainder", "remainder of one"),
    *("negative modulus", "piece that is never reached", "around a pole", "between two roots"),
    *("logarithm below zero", "logarithm of a reciprocal", "product of the sine", "slope on a branch cut"),
    *("tip of a lens", "line over a parabola", "equal at roots of thirds", "equal at an exponential"),
}
# True statements that are refused, and why; they must not be called false.
UNDECIDED = {
    "mass at a point": "nothing evaluates DiracDelta a second time",
    "mass at zero in a product": "nothing evaluates DiracDelta",
    "one-sided inverse": "no matrices are found that satisfy an equation between products",
    "cancelled on the right": "no matrices are found that satisfy an equation between products",
    "affine recursion": "the step needs a sum of powers under an inhomogeneous recurrence",
}
TITLES = (("t", "x"), ("A longer title, with a comma", "squareplus"), ("false", "z9"), ("Σ of 100 % & $x$", "rope"))
SAMPLE = [
    pair for pair in PAIRS if pair.name in ("Pascal", "far out", "kink", "inverse", "Cassini", "simplex of three")
]


def refusal(d: Derivation, step: Step, title: str) -> DerivationError | None:
    """Why the step is refused, None where it is accepted."""
    try:
        step(d, title)
    except DerivationError as refused:
        return refused
    return None


def decided(pair: Pair, title: str, chapter: str) -> tuple[str, str]:
    """The evidence of the true statement ("" if it is not decided), and why the false one is refused."""
    d = Derivation(chapter)
    undecided, refused = refusal(d, pair.true, title), refusal(Derivation(chapter), pair.false, title)
    if undecided is not None:
        assert pair.name in UNDECIDED, undecided
        assert "could not decide" in str(undecided)
    assert len(d.claims) == (undecided is None)
    assert refused is not None, "the false statement is accepted"
    assert refused.title.startswith(title)
    assert not isinstance(refused, VacuousClaim)
    point = refused.counterexample
    if point is None:
        assert any(words in str(refused) for words in ("could not decide", "observed", "every point"))
    else:
        assert all(not isinstance(value, Entries) for value in point.values())
    return d.claims[0].evidence if d.claims else "", str(refused).removeprefix(f"{title}: ")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name.replace(" ", "_"))
def test_true_statement_is_accepted_and_near_miss_is_refused(pair: Pair):
    evidence, _ = decided(pair, "demo", "demo")
    expected = "" if pair.name in UNDECIDED else "checked" if pair.name in OPEN else "proved"
    expected = "measured" if pair.name == "large whole numbers" else expected
    assert evidence == expected


@pytest.mark.parametrize("decision", [decide, decide_induction], ids=lambda decision: decision.__name__)
def test_what_decides_knows_no_title_and_no_chapter(decision: Any):
    assert not {"title", "chapter", "label"} & set(inspect.signature(decision).parameters)


@pytest.mark.parametrize(("title", "chapter"), TITLES, ids=lambda word: word)
def test_decision_does_not_depend_on_title_or_chapter(title: str, chapter: str):
    for pair in SAMPLE:
        assert decided(pair, title, chapter) == under_one_title(pair), pair.name


@functools.cache
def under_one_title(pair: Pair) -> tuple[str, str]:
    return decided(pair, "demo", "demo")


def test_table_is_large_and_nearly_all_of_it_is_decided():
    names = [pair.name for pair in PAIRS]
    fields = [pair.field for pair in PAIRS]
    assert len(set(names)) == len(names) >= 380
    assert set(names) >= OPEN | set(UNDECIDED)
    assert sum(fields.count(field) for field in ("vectors", "shapes", "inductions")) >= 60
    assert fields.count("reports") >= 60
    assert len(OPEN) < len(names) / 6
    assert len(UNDECIDED) < len(names) / 20


def test_two_runs_give_equal_bundles_under_any_hash_seed(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "publish", shown.append)
    d = Derivation("demo")
    for pair in SAMPLE:
        pair.true(d, pair.name)
    script = (
        "import json; from kexue_lib.derivation import _display as show; shown = []; show.publish = shown.append",
        "from cases import PAIRS; from kexue_lib.derivation import Derivation; d = Derivation('demo')",
        f"[pair.true(d, pair.name) for pair in PAIRS if pair.name in {[pair.name for pair in SAMPLE]}]",
        "print(json.dumps(shown))",
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": path}
    other = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, timeout=300, env=env
    )
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout) == json.loads(json.dumps(shown))
    assert len(shown) == len(SAMPLE)
