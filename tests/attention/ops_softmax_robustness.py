"""The operators of softmax robustness; references: dense attention, SciPy's entropy, Bessel functions and mpmath."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial

import mpmath
import numpy as np
import torch
from opinfo import OpInfo, Sample, scores, spoiled
from scipy.special import softmax
from scipy.stats import entropy

from kexue_lib.attention import softmax_robustness as sr
from kexue_lib.attention.softmax_robustness._stats import _BlockwiseAttention

# torch.compile cannot trace the shape checks that the tests wrap around the methods of an autograd function.
for method in ("forward", "setup_context", "backward"):
    setattr(_BlockwiseAttention, method, staticmethod(inspect.unwrap(getattr(_BlockwiseAttention, method))))

GENERATOR = torch.Generator().manual_seed(7)
KEYS = torch.randn(7, 4, dtype=torch.float64, generator=GENERATOR)
VALUES = torch.randn(7, 3, dtype=torch.float64, generator=GENERATOR)
FIELDS = sr.AttentionStats._fields


def probabilities(x: np.ndarray) -> np.ndarray:
    return np.zeros_like(x) if (x == -np.inf).all() else softmax(x)


def dense_stats(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: np.ndarray) -> sr.AttentionStats:
    """Row by row from the definitions."""
    rows = []
    for i, query in enumerate(q):
        s = k[visible[i]] @ query / math.sqrt(q.shape[-1])
        if len(s) == 0:
            rows.append((np.zeros(v.shape[-1]), -np.inf, 0.0, 0.0))
            continue
        p = softmax(s)
        rows.append((p @ v[visible[i]], s.max() + np.log(np.exp(s - s.max()).sum()), entropy(p), 1 / (p**2).sum()))
    return sr.AttentionStats(*(np.stack(column) for column in zip(*rows)))


def dense_field(q: np.ndarray, field: str, causal: bool = False, mask: np.ndarray | None = None) -> np.ndarray:
    visible = np.ones((len(q), 7), dtype=bool) if mask is None else np.broadcast_to(mask, (len(q), 7))
    if causal:
        visible = visible & (np.arange(7) <= np.arange(len(q))[:, None] + 7 - len(q))
    return getattr(dense_stats(q, KEYS.numpy(), VALUES.numpy(), visible), field)


def field_of_queries(q: torch.Tensor, field: str, causal: bool = False, mask: torch.Tensor | None = None):
    """One field of attention to fixed keys, three of them in a block."""
    out = sr.attention_stats(q, KEYS.to(q), VALUES.to(q), causal=causal, mask=mask, block_size=3)
    return getattr(out, field).to(q.dtype)


def queries() -> Iterator[Sample]:
    for seed, causal in enumerate((False, True)):
        q = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        yield Sample((2 * q,), {"causal": causal})
    mask = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(9)) < 0.5
    mask[..., 0] = True
    yield Sample((q,), {}, {"mask": mask})


def far_queries() -> Iterator[Sample]:
    q = torch.tensor([[[300.0, -300.0, 1.0, 0.0]], [[0.0] * 4]], dtype=torch.float64)
    yield Sample((q,), {})
    yield Sample((q,), {}, {"mask": torch.tensor([[[False] * 7], [[False, True] * 3 + [False]]])})


def logits() -> Iterator[Sample]:
    for seed, (n, spread) in enumerate([(6, 1.0), (3, 4.0), (1, 1.0)]):
        yield Sample(scores(n, spread, seed))


def extreme_logits() -> Iterator[Sample]:
    rows = [
        [0.0, -math.inf, 1.0],
        [1e4, -1e4, 1e4],
        [-math.inf] * 3,
        [5.0, 5.0, 5.0],
        [-math.inf, -math.inf, 3.0],
    ]
    yield Sample((torch.tensor(rows, dtype=torch.float64),))


def with_values(**kwargs: float) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for seed, n in enumerate((6, 1)):
            v = torch.randn(2, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            yield Sample((*scores(n, 1.5, seed), v), kwargs)

    return samples


def moments(s: np.ndarray, v: np.ndarray, cv2: float) -> tuple[np.ndarray, np.ndarray]:
    p = softmax(s)
    r = v - sum(p[i] * v[i] for i in range(len(p)))
    return -cv2 * sum(p[i] ** 2 * r[i] for i in range(len(p))), cv2 * sum(p[i] ** 2 * r[i] ** 2 for i in range(len(p)))


def positive(*values: float, **kwargs: int) -> Callable[[], list[Sample]]:
    """A column of numbers above zero."""
    return lambda: [Sample((torch.tensor(values, dtype=torch.float64)[:, None],), kwargs)]


def digits(function: Callable[..., mpmath.mpf]) -> Callable[..., np.ndarray]:
    """Entry by entry to 40 digits."""

    def reference(x: np.ndarray, **kwargs: int) -> np.ndarray:
        with mpmath.workdps(40):
            return np.array([float(function(mpmath.mpf(float(v)), **kwargs)) for v in x])

    return reference


def specht(tau: mpmath.mpf) -> mpmath.mpf:
    h = mpmath.exp(2 / tau)
    m = h * mpmath.log(h) / (h - 1)
    return m - 1 - mpmath.log(m)


def bessel_deficit(lam: mpmath.mpf, d: int) -> mpmath.mpf:
    x, nu = lam * d, mpmath.mpf(d) / 2 - 1
    first = mpmath.besseli(nu, x)
    return x * mpmath.besseli(nu + 1, x) / first - mpmath.log(mpmath.gamma(nu + 1) * (2 / x) ** nu * first)


def exponential_cv2(name: str) -> Callable[[mpmath.mpf], mpmath.mpf]:
    """From the moment generating functions."""
    root = mpmath.sqrt
    moment = {
        "gaussian": lambda t, s: mpmath.exp((t * s) ** 2 / 2),
        "uniform": lambda t, s: mpmath.sinh(root(3) * s * t) / (root(3) * s * t),
        "laplace": lambda t, s: 1 / (1 - s**2 * t**2 / 2),
        "gumbel": lambda t, s: mpmath.gamma(1 - root(6) / mpmath.pi * s * t),
    }[name]
    return lambda s: moment(2, s) / moment(1, s) ** 2 - 1


FLOAT64 = {"dtypes": (torch.float64,), "tolerance": 256.0}
ONES, FOUR = torch.ones(2, 4), torch.ones(4)
REFUSED = {
    "entropy": spoiled(
        sr.softmax_entropy,
        {"logits": ONES},
        ({"logits": ONES.long()}, TypeError, "logits: got torch.int64"),
        ({"logits": [1.0]}, TypeError, "logits: got list"),
        ({"logits": ONES[:, :0]}, ValueError, "logits: got shape (2, 0)"),
        ({"dim": 2}, ValueError, "dim: got 2"),
        ({"dim": 1.5}, TypeError, "dim: got 1.5"),
        ({"mask": torch.ones(2, 4, dtype=torch.int64)}, TypeError, "mask: got torch.int64"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, ValueError, "mask: got shape (3,)"),
    ),
    "number": spoiled(
        sr.effective_number,
        {"logits": ONES},
        ({"logits": ONES.long()}, TypeError, "logits: got torch.int64"),
        ({"logits": ONES[:, :0]}, ValueError, "logits: got shape (2, 0)"),
        ({"dim": 2}, ValueError, "dim: got 2"),
        ({"dim": True}, TypeError, "dim: got True"),
    ),
    "average": spoiled(
        sr.attention_average,
        {"scores": FOUR[:2], "values": ONES},
        ({"scores": FOUR[:2].long()}, TypeError, "scores: got torch.int64"),
        ({"values": ONES.cfloat()}, TypeError, "values: got torch.complex64"),
        ({"scores": torch.zeros(3)}, ValueError, "values: got length 2"),
        ({"scores": torch.tensor(1.0)}, ValueError, "scores: got shape ()"),
        ({"values": FOUR}, ValueError, "values: got shape (4,)"),
    ),
    "moments": spoiled(
        sr.perturbation_moments,
        {"scores": FOUR[:2], "values": ONES, "cv2": 0.1},
        ({"scores": FOUR[:2].long()}, TypeError, "scores: got torch.int64"),
        ({"values": ONES.long()}, TypeError, "values: got torch.int64"),
        ({"scores": torch.zeros(3)}, ValueError, "values: got length 2"),
        ({"values": FOUR}, ValueError, "values: got shape (4,)"),
        ({"cv2": "1"}, TypeError, "cv2: got '1'"),
    ),
    "stats": spoiled(
        sr.attention_stats,
        {"query": ONES, "key": ONES, "value": ONES},
        ({"query": ONES.long()}, TypeError, "query: got torch.int64"),
        ({"value": ONES.double()}, TypeError, "query, key, value: got torch.float32, torch.float32, torch.float64"),
        ({"block_size": 0}, ValueError, "block_size: got 0"),
        ({"key": ONES[:1]}, ValueError, "value: got length 2"),
        ({"key": ONES[:, :3]}, ValueError, "key: got width 3"),
        ({"query": FOUR}, ValueError, "query: got shape (4,)"),
        (
            {"query": ONES.expand(3, 2, 4), "key": ONES.expand(2, 2, 4)},
            ValueError,
            "query, key, value: got shapes (3, 2, 4), (2, 2, 4), (2, 4)",
        ),
        ({"mask": torch.ones(2, 2)}, TypeError, "mask: got torch.float32"),
        ({"mask": torch.ones(3, 2, dtype=torch.bool)}, ValueError, "mask: got shape (3, 2)"),
        ({"scale": torch.ones(3)}, ValueError, "scale: got shape (3,)"),
        ({"scale": "1"}, TypeError, "scale: got '1'"),
    ),
    "noise": spoiled(
        sr.noise_cv2,
        {"distribution": "gaussian", "sigma": FOUR},
        ({"distribution": "cauchy"}, ValueError, "distribution: got 'cauchy'"),
        ({"sigma": -1.0}, ValueError, "sigma: got -1.0"),
        ({"sigma": -FOUR}, ValueError, "sigma: got -1.0"),
        ({"sigma": FOUR > 0}, TypeError, "sigma: got torch.bool"),
        ({"sigma": FOUR.cfloat()}, TypeError, "sigma: got torch.complex64"),
        ({"sigma": "1"}, TypeError, "sigma: got '1'"),
    ),
    "cosine": spoiled(
        sr.cosine_entropy_deficit,
        {"tau": FOUR},
        ({"tau": 0.0}, ValueError, "tau: got 0.0"),
        ({"tau": -FOUR}, ValueError, "tau: got -1.0"),
        ({"tau": FOUR.cfloat()}, TypeError, "tau: got torch.complex64"),
    ),
    "gaussian": spoiled(
        sr.gaussian_entropy,
        {"n": 5, "sigma": FOUR},
        ({"n": 0}, ValueError, "n: got 0"),
        ({"n": "5"}, TypeError, "n: got '5'"),
        ({"sigma": -1.0}, ValueError, "sigma: got -1.0"),
        ({"sigma": FOUR.cfloat()}, TypeError, "sigma: got torch.complex64"),
    ),
    "sphere": spoiled(
        sr.sphere_entropy_deficit,
        {"lam": FOUR, "d": 8},
        ({"d": 1}, ValueError, "d: got 1"),
        ({"d": 8.0}, TypeError, "d: got 8.0"),
        ({"lam": -1.0}, ValueError, "lam: got -1.0"),
        ({"lam": FOUR.cfloat()}, TypeError, "lam: got torch.complex64"),
        ({"method": "saddle"}, ValueError, "method: got 'saddle'"),
    ),
}

OPS = [
    OpInfo(
        "softmax_entropy",
        sr.softmax_entropy,
        lambda x: np.asarray(entropy(softmax(x))),
        logits,
        errors=REFUSED["entropy"],
    ),
    OpInfo(
        "softmax_entropy_extreme",
        sr.softmax_entropy,
        lambda x: np.asarray(entropy(probabilities(x)) if np.isfinite(x).any() else 0.0),
        logits,
        extreme_logits,
        errors=REFUSED["entropy"],
        half_tolerance=4.0,
    ),
    OpInfo(
        "softmax_effective_number",
        sr.effective_number,
        lambda x: np.asarray(1 / (probabilities(x) ** 2).sum() if np.isfinite(x).any() else 0.0),
        logits,
        extreme_logits,
        errors=REFUSED["number"],
    ),
    OpInfo(
        "attention_average", sr.attention_average, lambda s, v: softmax(s) @ v, with_values(), errors=REFUSED["average"]
    ),
    *(
        OpInfo(
            f"perturbation_{name}",
            lambda s, v, cv2, i=i: sr.perturbation_moments(s, v, cv2)[i],
            lambda s, v, cv2, i=i: moments(s, v, cv2)[i],
            with_values(cv2=0.3),
            errors=REFUSED["moments"],
            half_tolerance=8.0,
        )
        for i, name in enumerate(("bias", "variance"))
    ),
    *(
        OpInfo(
            f"attention_stats_{field}",
            partial(field_of_queries, field=field),
            partial(dense_field, field=field),
            queries,
            far_queries,
            errors=REFUSED["stats"],
            half_tolerance=8.0,  # keys and values are rounded to the half type
            forward_mode=False,
        )
        for field in FIELDS
    ),
    *(
        OpInfo(
            f"noise_cv2_{name}",
            partial(sr.noise_cv2, name),
            digits(exponential_cv2(name)),
            positive(1e-6, 1e-2, 0.1, 0.3, 0.5),
            errors=REFUSED["noise"],
            any_shape=True,
            forward_mode=name != "gumbel",
            second_derivative=name != "gumbel",
            **FLOAT64,
        )
        for name in ("gaussian", "uniform", "laplace", "gumbel")
    ),
    OpInfo(
        "cosine_entropy_deficit",
        sr.cosine_entropy_deficit,
        digits(specht),
        positive(0.05, 0.3, 0.9, 1.1, 2.0, 30.0),
        errors=REFUSED["cosine"],
        any_shape=True,
        **FLOAT64,
    ),
    OpInfo(
        "gaussian_entropy",
        lambda sigma: sr.gaussian_entropy(1000, sigma),
        digits(lambda s: max(mpmath.log(1000) - s**2 / 2, mpmath.mpf(0))),
        positive(0.1, 1.0, 3.0, 5.0),
        errors=REFUSED["gaussian"],
        any_shape=True,
        **FLOAT64,
    ),
    *(
        OpInfo(
            f"sphere_entropy_deficit_{method}",
            partial(sr.sphere_entropy_deficit, method=method),
            digits(reference),
            positive(0.05, 0.3, 1.0, 4.0, d=16),
            errors=REFUSED["sphere"],
            any_shape=True,
            **FLOAT64,
        )
        for method, reference in (
            ("exact", bessel_deficit),
            ("laplace", lambda lam, d: d * mpmath.log((1 + mpmath.sqrt(1 + 4 * lam**2)) / 2) / 2),
        )
    ),
]
