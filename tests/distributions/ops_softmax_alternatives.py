"""The operators of the softmax alternatives; references: bisection in 50-digit arithmetic, and adaptive quadrature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mpmath
import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from scipy import integrate, special, stats

from kexue_lib.distributions import softmax_alternatives as sa


def exact_entmax(x: np.ndarray, alpha: float | np.ndarray = 1.5) -> list[mpmath.mpf]:
    """p in 50 digits, by bisection for the height m of the largest entry."""
    with mpmath.workdps(50):
        beta = mpmath.mpf(float(np.asarray(alpha).reshape(-1)[0])) - 1
        values = [mpmath.mpf(float(v)) for v in x]
        top = max(values)
        y = [beta * (v - top) if v > -mpmath.inf else -mpmath.inf for v in values]
        power = lambda m: [(v + m) ** (1 / beta) if v + m > 0 else mpmath.mpf(0) for v in y]
        low, high = mpmath.mpf(0), mpmath.mpf(1)
        for _ in range(165):
            m = (low + high) / 2
            low, high = (low, m) if mpmath.fsum(power(m)) > 1 else (m, high)
        return power(high)


def bisected(x: np.ndarray, alpha: float | np.ndarray = 1.5) -> np.ndarray:
    if isinstance(alpha, float) and alpha == 1:
        return special.softmax(x)
    return np.array([float(p) for p in exact_entmax(x, alpha)])


def exact_loss(x: np.ndarray, target: np.ndarray, alpha: float = 1.5) -> np.ndarray:
    """Ω*(x) + Ω(y) − ⟨x, y⟩ in 50 digits."""
    y = np.eye(len(x))[int(target)] if np.ndim(target) == 0 else target
    with mpmath.workdps(50):
        a = mpmath.mpf(alpha)
        entropy = lambda q: (1 - mpmath.fsum(v**a for v in q)) / (a * (a - 1))
        p, y, top = exact_entmax(x, alpha), [mpmath.mpf(float(v)) for v in y], max(x)
        inner = mpmath.fsum(
            (pi - yi) * mpmath.mpf(float(xi) - float(top)) for pi, yi, xi in zip(p, y, x) if pi != 0 or yi != 0
        )
        return np.asarray(float(inner + entropy(p) - entropy(y)))


def sorted_softmax(x: np.ndarray, k: int) -> np.ndarray:
    kept = np.full_like(x, -np.inf)
    index = np.argsort(-x, kind="stable")[:k]
    kept[index] = x[index]
    return special.softmax(kept)


def sorted_softmax_loss(x: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    return np.asarray(special.logsumexp(np.sort(x)[::-1][:k]) - x[int(target)])


def taylor(x: np.ndarray, order: int) -> np.ndarray:
    with mpmath.workdps(50):
        f = [mpmath.fsum(mpmath.mpf(float(v)) ** m / mpmath.factorial(m) for m in range(order + 1)) for v in x]
        return np.array([float(v / mpmath.fsum(f)) for v in f])


def margin_loss(x: np.ndarray, target: np.ndarray, margin: float, tau: float) -> np.ndarray:
    shifted = x.copy()
    shifted[int(target)] -= margin
    return np.asarray(special.logsumexp(shifted / tau) - shifted[int(target)] / tau)


DISTRIBUTIONS = {"normal": stats.norm, "logistic": stats.logistic, "exponential": stats.expon}


def integrated(x: np.ndarray, noise: str) -> np.ndarray:
    """∫ f(ε) ∏ F(xᵢ − xⱼ + ε) dε by adaptive quadrature, in pieces where exponential noise has kinks."""
    if noise == "gumbel":
        return special.softmax(x)
    law, result = DISTRIBUTIONS[noise], []
    for i, v in enumerate(x):
        others = np.delete(x, i)
        f = lambda e, v=v, others=others: law.pdf(e) * np.prod(law.cdf(v - others + e))
        cuts = sorted({0.0, 40.0, *(max(0.0, o - v) for o in others)}) if noise == "exponential" else [-40, 0, 5, 40]
        result.append(sum(integrate.quad(f, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in itertools.pairwise(cuts)))
    return np.array(result)


def rows_of_scores(*, target: bool = False, **kwargs: Any) -> Callable[[], Iterator[Sample]]:
    """Few and many entries, near and far, one entry."""

    def samples() -> Iterator[Sample]:
        for seed, (n, spread) in enumerate([(5, 1.0), (9, 0.3), (3, 2.0), (1, 1.0)]):
            more = {"target": torch.tensor([0, n - 1])} if target else {}
            yield Sample(scores(n, spread, seed), kwargs, more)

    return samples


EDGE = [
    [1.0, 1.0, 1.0, 1.0, 1.0],
    [2.0, -math.inf, 1.9, -math.inf, 1.5],
    [2.0, 0.0, 0.0, 0.0, 0.0],
    [60000.0, 60000.0, -60000.0, 59999.5, 0.0],
    [1e4, 1e4 + 1, 1e4, -3e38, 1e4 - 0.5],
]


def at_the_edge(**kwargs: Any) -> Callable[[], list[Sample]]:
    """Ties, excluded entries, an entry on the border of the support, an offset, a huge spread."""
    return lambda: [Sample((torch.tensor(EDGE, dtype=torch.float64),), kwargs)]


def losses_at_the_edge(**kwargs: Any) -> list[Sample]:
    return [Sample((torch.tensor(EDGE, dtype=torch.float64),), kwargs, {"target": torch.tensor([3, 2, 0, 3, 2])})]


def rows_of_distributions(**kwargs: Any) -> Iterator[Sample]:
    for seed in (0, 1):
        (x,) = scores(4, 1.0, seed)
        yield Sample((x,), kwargs, {"target": sa.sparsemax(scores(4, 1.0, seed + 5)[0])})


def with_alphas() -> Iterator[Sample]:
    for seed, (n, spread) in enumerate([(5, 1.0), (8, 0.4), (1, 1.0)]):
        yield Sample((*scores(n, spread, seed), torch.tensor([[1.2], [1.7]], dtype=torch.float64)))


X, TARGET = torch.zeros(2, 3), torch.tensor([0, 1])
GOOD = {"x": X}
SCORES = [
    ({"x": X.long()}, TypeError, "x: got torch.int64"),
    ({"x": X.cfloat()}, TypeError, "x: got torch.complex64"),
    ({"dim": 2}, ValueError, "dim: got 2"),
    ({"dim": 1.5}, TypeError, "dim: got 1.5"),
    ({"x": X[:, :0]}, ValueError, "x: got shape (2, 0)"),
]
ROWS = [
    ({"x": X.long()}, TypeError, "x: got torch.int64"),
    ({"x": X[:, :0]}, ValueError, "x: got shape (2, 0)"),
    ({"x": X[0, 0]}, ValueError, "x: got shape ()"),
    ({"target": torch.tensor([0, 3])}, ValueError, "target: got values from 0 to 3"),
    ({"target": torch.tensor([-1, 0])}, ValueError, "target: got values from -1 to 0"),
    ({"target": torch.tensor([0])}, ValueError, "target: got shape (1,)"),
    ({"target": torch.zeros(2, dtype=torch.int32)}, TypeError, "target: got torch.int32"),
    ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
    ({"ignore_index": "1"}, TypeError, "ignore_index: got '1'"),
]
REFUSED = {
    "sparsemax": spoiled(
        sa.sparsemax,
        GOOD,
        *SCORES,
    ),
    "entmax15": spoiled(
        sa.entmax15,
        GOOD,
        *SCORES,
    ),
    "entmax": spoiled(
        sa.entmax,
        GOOD,
        *SCORES,
        ({"alpha": 0.5}, ValueError, "alpha: got 0.5"),
        ({"alpha": math.inf}, ValueError, "alpha: got inf"),
        ({"alpha": "1.5"}, TypeError, "alpha: got '1.5'"),
        ({"alpha": torch.tensor([1.2, 1.3, 1.4])}, ValueError, "alpha: got shape (3,)"),
        ({"alpha": torch.tensor(2)}, TypeError, "alpha: got torch.int64"),
        ({"alpha": torch.tensor([[1.5], [2.5]])}, ValueError, "alpha: got a tensor with 2.5"),
        ({"alpha": torch.tensor(math.nan)}, ValueError, "alpha: got a tensor with nan"),
    ),
    "entmax_loss": spoiled(
        sa.entmax_loss,
        {**GOOD, "target": TARGET},
        *ROWS,
        ({"target": torch.zeros(2)}, ValueError, "target: got shape (2,)"),
        ({"alpha": 0.5}, ValueError, "alpha: got 0.5"),
    ),
    "sparse": spoiled(
        sa.sparse_softmax,
        {**GOOD, "k": 2},
        *SCORES,
        ({"k": 4}, ValueError, "k: got 4"),
        ({"k": 0}, ValueError, "k: got 0"),
        ({"k": 1.0}, TypeError, "k: got 1.0"),
    ),
    "sparse_loss": spoiled(
        sa.sparse_softmax_loss,
        {**GOOD, "k": 2, "target": TARGET},
        *ROWS,
        ({"target": X}, TypeError, "target: got torch.float32"),
        ({"k": 4}, ValueError, "k: got 4"),
    ),
    "taylor": spoiled(
        sa.taylor_softmax,
        GOOD,
        *SCORES,
        ({"order": 3}, ValueError, "order: got 3"),
        ({"order": 0}, ValueError, "order: got 0"),
        ({"order": 2.0}, TypeError, "order: got 2.0"),
    ),
    "margin": spoiled(
        sa.margin_cross_entropy,
        {"cos": X, "target": TARGET},
        ({"cos": X.long()}, TypeError, "cos: got torch.int64"),
        ({"cos": X[:, :0]}, ValueError, "cos: got shape (2, 0)"),
        ({"target": torch.tensor([0, 3])}, ValueError, "target: got values from 0 to 3"),
        ({"target": X}, TypeError, "target: got torch.float32"),
        ({"tau": 0.0}, ValueError, "tau: got 0.0"),
        ({"margin": "1"}, TypeError, "margin: got '1'"),
        ({"margin": math.nan}, ValueError, "margin: got nan"),
        ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
    ),
    "perturb": spoiled(
        sa.perturb_max,
        GOOD,
        *SCORES,
        ({"noise": "cauchy"}, ValueError, "noise: got 'cauchy'"),
        ({"num_points": 1}, ValueError, "num_points: got 1"),
    ),
}

OPS = [
    OpInfo(
        "sparsemax",
        sa.sparsemax,
        partial(bisected, alpha=2.0),
        rows_of_scores(),
        at_the_edge(),
        errors=REFUSED["sparsemax"],
    ),
    OpInfo(
        "entmax15",
        sa.entmax15,
        partial(bisected, alpha=1.5),
        rows_of_scores(),
        at_the_edge(),
        errors=REFUSED["entmax15"],
    ),
    *(
        OpInfo(
            f"entmax_{alpha}",
            partial(sa.entmax, alpha=alpha),
            partial(bisected, alpha=alpha),
            rows_of_scores(),
            edge,
            errors=REFUSED["entmax"],
        )
        for alpha, edge in ((1.0, at_the_edge()), (1.05, tuple), (1.25, at_the_edge()), (1.8, at_the_edge()))
    ),
    OpInfo("entmax_tensor_alpha", sa.entmax, bisected, with_alphas, errors=REFUSED["entmax"]),
    *(
        OpInfo(
            f"entmax_loss_{alpha}",
            partial(sa.entmax_loss, alpha=alpha, reduction="none"),
            partial(exact_loss, alpha=alpha),
            rows_of_scores(target=True),
            losses_at_the_edge,
            errors=REFUSED["entmax_loss"],
        )
        for alpha in (1.3, 1.5, 2.0)
    ),
    OpInfo(
        "entmax_loss_of_distributions",
        partial(sa.entmax_loss, reduction="none"),
        exact_loss,
        rows_of_distributions,
        errors=REFUSED["entmax_loss"],
        dtypes=(torch.float64,),
    ),
    OpInfo(
        "sparse_softmax",
        sa.sparse_softmax,
        sorted_softmax,
        lambda: [Sample(scores(5, 1.0, 0), {"k": 3})],
        errors=REFUSED["sparse"],
    ),
    OpInfo(
        "sparse_softmax_loss",
        partial(sa.sparse_softmax_loss, reduction="none"),
        sorted_softmax_loss,
        lambda: [Sample(scores(5, 1.0, 0), {"k": 3}, {"target": torch.tensor([0, 4])})],
        errors=REFUSED["sparse_loss"],
    ),
    *(
        OpInfo(
            f"taylor_softmax_{order}",
            partial(sa.taylor_softmax, order=order),
            partial(taylor, order=order),
            rows,
            errors=REFUSED["taylor"],
        )
        for order, rows in ((2, rows_of_scores()), (6, rows_of_scores()))
    ),
    OpInfo(
        "margin_cross_entropy",
        partial(sa.margin_cross_entropy, margin=0.3, tau=0.5, reduction="none"),
        partial(margin_loss, margin=0.3, tau=0.5),
        rows_of_scores(target=True),
        errors=REFUSED["margin"],
    ),
    *(
        OpInfo(
            f"perturb_max_{noise}",
            partial(sa.perturb_max, noise=noise),
            partial(integrated, noise=noise),
            rows_of_scores(),
            errors=REFUSED["perturb"],
            tolerance=1e6 if noise == "logistic" else 64.0 * 100,
            dtypes=(torch.float64,),
        )
        for noise in ("gumbel", "normal", "exponential", "logistic")
    ),
]
