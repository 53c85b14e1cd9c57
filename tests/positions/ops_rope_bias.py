"""The operators of rope_bias; reference: pairs as complex numbers, and explicit loops over the scores."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from torch import Tensor

from kexue_lib.positions import rope_bias as rb

THETA = [1.0, 0.3, 0.05]
FREQUENCIES = torch.tensor(THETA, dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


A4, B2 = drawn(4, 6, seed=8), drawn(2, 6, seed=9)


def as_complex(x: np.ndarray, layout: str) -> np.ndarray:
    first, second = np.split(x, 2, axis=-1) if layout == "half" else (x[..., 0::2], x[..., 1::2])
    return first + 1j * second


def coefficients(a: Tensor, b: Tensor, layout: str) -> Tensor:
    return torch.cat(rb.bias_coefficients(a, b, layout=layout), dim=-1)


def complex_coefficients(a: np.ndarray, b: np.ndarray, layout: str) -> np.ndarray:
    product = as_complex(a, layout).conj() * as_complex(b, layout)
    return np.concatenate([product.real, product.imag], axis=-1)


def both_biases(alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.cat(rb.biases_from_coefficients(alpha, beta), dim=-1)


def polar_biases(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    wave = alpha + 1j * beta
    root = np.sqrt(np.abs(wave))
    second = np.divide(wave, root, out=np.zeros_like(wave), where=root > 0)
    return np.concatenate([root, 0 * root, second.real, second.imag], axis=-1)


def kernel(a: Tensor, b: Tensor, layout: str) -> Tensor:
    return rb.rotary_kernel(a, b, torch.arange(-3, 9, device=a.device), FREQUENCIES, layout=layout)


def complex_kernel(a: np.ndarray, b: np.ndarray, layout: str) -> np.ndarray:
    waves = np.exp(1j * np.arange(-3, 9)[:, None] * np.array(THETA))
    return (as_complex(a, layout) * waves * as_complex(b, layout).conj()).sum(-1).real


def all_terms(q: Tensor, k: Tensor) -> Tensor:
    a, b = A4.to(q), B2.to(q)
    return sum(rb.score_terms(q, k, a, b, FREQUENCIES))


def score_loops(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    q = as_complex(q + A4.numpy()[:, None], "half")
    k = as_complex(k + B2.numpy()[:, None], "half")
    out = np.empty((4, q.shape[1], k.shape[1]))
    for h, i, j in np.ndindex(*out.shape):
        distance = i + k.shape[1] - q.shape[1] - j
        out[h, i, j] = (q[h, i] * np.exp(1j * distance * np.array(THETA)) * k[h // 2, j].conj()).sum().real
    return out


def appended_scores(q: Tensor, k: Tensor) -> Tensor:
    q, k = rb.append_kernel(q, k, A4[:2].to(q), B2.to(q), FREQUENCIES)
    return (q[..., :, None, :] * k[..., None, :, :]).sum(-1)  # no matrix product: autocast would round it


def content_and_kernel(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    a, b = (as_complex(x.numpy(), "half") for x in (A4[:2], B2))
    q, k = as_complex(q, "half"), as_complex(k, "half")
    out = np.empty((2, q.shape[1], k.shape[1]))
    for h, i, j in np.ndindex(*out.shape):
        wave = np.exp(1j * (i + k.shape[1] - q.shape[1] - j) * np.array(THETA))
        out[h, i, j] = ((q[h, i] * k[h, j].conj() + a[h] * b[h].conj()) * wave).sum().real
    return out


def mean_diagonals(scores: np.ndarray) -> np.ndarray:
    return np.array([np.diagonal(scores, -r).mean() for r in range(len(scores))])


def fitted(target: Tensor) -> Tensor:
    return torch.cat(rb.bias_coefficients(*rb.fit_biases(target, FREQUENCIES, ridge=0.5)), dim=-1)


def augmented_least_squares(target: np.ndarray) -> np.ndarray:
    angles = np.arange(len(target))[:, None] * np.array(THETA)
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    system = np.concatenate([waves, np.sqrt(0.5) * np.eye(6)])
    return np.linalg.lstsq(system, np.concatenate([target, np.zeros(6)]), rcond=None)[0]


HUGE = torch.tensor([[0.0, 1e30, -1e-30, 1.0], [2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
Q, K, FOUR = torch.ones(2, 3, 6), torch.ones(1, 5, 6), torch.ones(4)
BIASES = {"a": FOUR, "b": FOUR}
SCORED = {"q": Q, "k": K, "a": Q[:, 0], "b": K[:, 0], "inv_freq": FOUR[:3]}
PAIRS = [
    ({"a": FOUR.long()}, TypeError, "a: got torch.int64"),
    ({"b": FOUR.cfloat()}, TypeError, "b: got torch.complex64"),
    ({"a": torch.ones(3), "b": torch.ones(3)}, ValueError, "a, b: got widths 3 and 3"),
    ({"b": torch.ones(6)}, ValueError, "a, b: got widths 4 and 6"),
    ({"a": FOUR[0]}, ValueError, "a: got shape ()"),
    ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
]
REFUSED = {
    "coefficients": spoiled(
        rb.bias_coefficients,
        BIASES,
        *PAIRS,
    ),
    "kernel": spoiled(
        rb.rotary_kernel,
        {**BIASES, "relative": torch.arange(2), "inv_freq": FOUR[:2]},
        *PAIRS,
        ({"relative": FOUR.cfloat()}, TypeError, "relative: got torch.complex64"),
        ({"relative": torch.ones(2, 2)}, ValueError, "relative: got shape (2, 2)"),
        ({"inv_freq": FOUR[:3]}, ValueError, "inv_freq: got shape (3,)"),
        ({"inv_freq": torch.arange(2)}, TypeError, "inv_freq: got torch.int64"),
    ),
    "biases": spoiled(
        rb.biases_from_coefficients,
        {"cos_coeff": FOUR, "sin_coeff": FOUR},
        ({"cos_coeff": FOUR.long()}, TypeError, "cos_coeff: got torch.int64"),
        ({"sin_coeff": FOUR.cfloat()}, TypeError, "sin_coeff: got torch.complex64"),
        ({"sin_coeff": FOUR[:3]}, ValueError, "sin_coeff: got shape (3,)"),
        ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
    ),
    "terms": spoiled(
        rb.score_terms,
        SCORED,
        ({"q": Q.long()}, TypeError, "q: got torch.int64"),
        ({"k": K.long()}, TypeError, "k: got torch.int64"),
        ({"a": Q[:, 0].long()}, TypeError, "a: got torch.int64"),
        ({"q": Q[0, 0]}, ValueError, "q: got shape (6,)"),
        ({"k": Q[:1].expand(3, 3, 6), "b": torch.zeros(3, 6)}, ValueError, "k: got 3 heads"),
        ({"a": K[:, 0]}, ValueError, "a: got shape (1, 6)"),
        ({"k_positions": torch.arange(4)}, ValueError, "k_positions: got shape (4,)"),
        ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
    ),
    "append": spoiled(
        rb.append_kernel,
        {**SCORED, "k": Q, "b": Q[:, 0]},
        ({"q": Q.long()}, TypeError, "q: got torch.int64"),
        ({"b": Q[:, 0].cfloat()}, TypeError, "b: got torch.complex64"),
        ({"k": K, "b": K[:, 0]}, ValueError, "b: got shape (1, 6)"),
        ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
    ),
    "profile": spoiled(
        rb.distance_profile,
        {"scores": torch.ones(3, 3)},
        ({"scores": torch.ones(3, 3).long()}, TypeError, "scores: got torch.int64"),
        ({"scores": torch.ones(3, 4)}, ValueError, "scores: got shape (3, 4)"),
        ({"scores": torch.ones(3)}, ValueError, "scores: got shape (3,)"),
    ),
    "fit": spoiled(
        rb.fit_biases,
        {"target": FOUR, "inv_freq": FREQUENCIES},
        ({"target": FOUR.long()}, TypeError, "target: got torch.int64"),
        ({"target": FOUR[0]}, ValueError, "target: got shape ()"),
        ({"inv_freq": torch.ones(3, dtype=torch.long)}, TypeError, "inv_freq: got torch.int64"),
        ({"inv_freq": FOUR[0]}, ValueError, "inv_freq: got shape ()"),
        ({"ridge": "1"}, TypeError, "ridge: got '1'"),
        ({"ridge": -1e-9}, ValueError, "ridge: got -1e-09"),
        ({"ridge": float("nan")}, ValueError, "ridge: got nan"),
        ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
    ),
}

OPS = [
    *(
        OpInfo(
            f"{name}_{layout}",
            partial(op, layout=layout),
            partial(reference, layout=layout),
            lambda: [Sample((drawn(3, 6), drawn(3, 6, seed=1)))],
            lambda: [Sample((torch.zeros(2, 6, dtype=torch.float64), drawn(2, 6)))],
            errors=REFUSED[name.removeprefix("bias_").removeprefix("rotary_")],
        )
        for name, op, reference in (
            ("bias_coefficients", coefficients, complex_coefficients),
            ("rotary_kernel", kernel, complex_kernel),
        )
        for layout in ("half", "interleaved")
    ),
    OpInfo(
        "biases_from_coefficients",
        both_biases,
        polar_biases,
        lambda: [Sample((drawn(3, 4), drawn(3, 4, seed=1)))],
        lambda: [Sample((HUGE, HUGE.flip(0)))],
        errors=REFUSED["biases"],
    ),
    OpInfo(
        "score_terms",
        all_terms,
        score_loops,
        lambda: [Sample((drawn(2, 4, 3, 6), drawn(2, 2, 5, 6, seed=1)))],
        errors=REFUSED["terms"],
        half_tolerance=8.0,  # four terms, each rounded, are added
    ),
    OpInfo(
        "append_kernel",
        appended_scores,
        content_and_kernel,
        lambda: [Sample((drawn(2, 2, 3, 6), drawn(2, 2, 5, 6, seed=1)))],
        errors=REFUSED["append"],
        half_tolerance=8.0,  # rotated vectors are rounded before they are multiplied
    ),
    OpInfo(
        "distance_profile",
        rb.distance_profile,
        mean_diagonals,
        lambda: [Sample((drawn(3, 5, 5),)), Sample((drawn(2, 1, 1),))],
        lambda: [Sample((torch.triu(torch.full((2, 4, 4), torch.inf, dtype=torch.float64), 1),))],
        errors=REFUSED["profile"],
    ),
    OpInfo(
        "fit_biases",
        fitted,
        augmented_least_squares,
        lambda: [Sample((drawn(3, 12),))],
        errors=REFUSED["fit"],
        half_tolerance=8.0,
    ),
]
