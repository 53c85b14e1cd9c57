"""The operators of rectified distances; reference: complex numbers turned by ρθ, pair by pair of tokens."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from torch import Tensor

from kexue_lib.positions import rerope
from kexue_lib.positions.rope import inverse_frequencies

PAIRS = 1  # two of three components turn


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Two rows: two heads of three queries, the last of five keys with one head."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 2, 3, 3), (2, 1, 5, 3), (2, 1, 5, 2))
    return tuple(torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes)


def by_blocks(q: Tensor, k: Tensor, v: Tensor, window: float, factor: float) -> Tensor:
    return rerope.rerope_attention(
        q, k, v, inverse_frequencies(2 * PAIRS, 50.0), window=window, factor=factor, block_size=2
    )


def by_matrices(q: Tensor, k: Tensor, v: Tensor, window: float, factor: float) -> Tensor:
    return rerope.rerope_attention_reference(
        q, k, v, inverse_frequencies(2 * PAIRS, 50.0), window=window, factor=factor
    )


def by_distances(q: Tensor, k: Tensor, v: Tensor, window: float, factor: float) -> Tensor:
    n, total = q.shape[-2], k.shape[-2]
    relative = torch.arange(total - n, total)[:, None] - torch.arange(total)
    distance = rerope.rectified_distance(relative, window, factor).to(q.device)
    return rerope.distance_attention(q, k, v, inverse_frequencies(2 * PAIRS, 50.0), distance)


def turned_pair_by_pair(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: float, factor: float) -> np.ndarray:
    """One row of the batch, from the definition: no matrix product, no rotation of a vector."""
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    heads, n, width = q.shape
    total, theta = k.shape[1], 50.0 ** (-np.arange(PAIRS) / PAIRS)
    for h in range(heads):
        g = h // (heads // k.shape[0])
        for i in range(n):
            place, weights = total - n + i, np.zeros(total)
            for j in range(place + 1):
                r = place - j
                rho = r if r < window else window if math.isinf(factor) else window + (r - window) / factor
                x, y = q[h, i], k[g, j]
                x_c, y_c = x[:PAIRS] + 1j * x[PAIRS : 2 * PAIRS], y[:PAIRS] + 1j * y[PAIRS : 2 * PAIRS]
                turned = (x_c * y_c.conj() * np.exp(1j * rho * theta)).real.sum()
                weights[j] = (turned + x[2 * PAIRS :] @ y[2 * PAIRS :]) / math.sqrt(width)
            seen = np.exp(weights[: place + 1] - weights[: place + 1].max())
            out[h, i] = seen @ v[g, : place + 1] / seen.sum()
    return out


def merged(o1: Tensor, o2: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    out, lse = rerope.merge_attention([o1, o2], [l1, l2])
    return torch.cat([out, lse.unsqueeze(-1)], dim=-1)


def merged_weights(o1: np.ndarray, o2: np.ndarray, l1: np.ndarray, l2: np.ndarray) -> np.ndarray:
    lse = np.logaddexp(l1, l2)
    share = np.exp(l1 - lse)[..., None]
    return np.concatenate([share * o1 + (1 - share) * o2, lse[..., None]], axis=-1)


def parts() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 3, 4), (2, 3, 4), (2, 3), (2, 3))
    return tuple(torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes)


SETTINGS = {"rerope": (2, math.inf), "leaky": (1.5, 4.0)}

Q, K, SPEEDS = torch.ones(2, 3, 4), torch.ones(1, 5, 4), torch.ones(2)
GOOD = {"q": Q, "k": K, "v": K, "inv_freq": SPEEDS}
HEADS = [
    ({"q": Q.long()}, TypeError, "q: got torch.int64"),
    ({"k": K.cfloat()}, TypeError, "k: got torch.complex64"),
    ({"v": K.long()}, TypeError, "v: got torch.int64"),
    ({"q": Q[0, 0]}, ValueError, "q: got shape (4,)"),
    ({"k": K[..., :3]}, ValueError, "k: got dim 3"),
    ({"q": Q[:1].expand(3, 3, 4), "k": K.expand(2, 5, 4), "v": K.expand(2, 5, 4)}, ValueError, "q: got 3 heads"),
    ({"v": K[:, :2]}, ValueError, "v: got length 2"),
    ({"v": K.expand(2, 5, 4)}, ValueError, "v: got heads 2"),
    ({"inv_freq": torch.arange(2)}, TypeError, "inv_freq: got torch.int64"),
    ({"inv_freq": torch.ones(3)}, ValueError, "inv_freq: got shape (3,)"),
    ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
    ({"scale": "1"}, TypeError, "scale: got '1'"),
]
WINDOW = [
    ({"window": math.nan}, ValueError, "window: got nan"),
    ({"window": "2"}, TypeError, "window: got '2'"),
    ({"factor": 0}, ValueError, "factor: got 0"),
    ({"q_positions": torch.arange(2)}, ValueError, "q_positions: got shape (2,)"),
]
REFUSED = {
    "blocks": spoiled(
        rerope.rerope_attention,
        {**GOOD, "window": 2},
        *HEADS,
        *WINDOW,
        ({"block_size": 0}, ValueError, "block_size: got 0"),
        ({"backend": "cuda"}, ValueError, "backend: got 'cuda'"),
        ({"backend": "flex", "q_positions": torch.arange(3)}, ValueError, "backend: got 'flex' with positions"),
        (
            {"backend": "flex", "k": K[:, :2], "v": K[:, :2]},
            ValueError,
            "backend: got 'flex' with more queries than keys",
        ),
    ),
    "matrices": spoiled(
        rerope.rerope_attention_reference,
        {**GOOD, "window": 2},
        *HEADS,
        *WINDOW,
    ),
    "distances": spoiled(
        rerope.distance_attention,
        {**GOOD, "distance": torch.ones(3, 5)},
        *HEADS,
        ({"distance": torch.ones(3, 5).cfloat()}, TypeError, "distance: got torch.complex64"),
        ({"distance": torch.ones(3, 4)}, ValueError, "distance: got shape (3, 4)"),
    ),
    "merge": spoiled(
        rerope.merge_attention,
        {"outputs": [Q, Q], "lses": [Q[..., 0], Q[..., 0]]},
        ({"lses": [Q[..., 0]]}, ValueError, "lses: got 1 for 2 outputs"),
        ({"outputs": [Q.long(), Q]}, TypeError, "outputs: got torch.int64"),
        ({"lses": [Q[..., 0], Q[:1, :, 0]]}, ValueError, "lses: got shape (1, 3)"),
    ),
}

OPS = [
    *(
        OpInfo(
            f"{form}_{name}",
            partial(op, window=window, factor=factor),
            partial(turned_pair_by_pair, window=window, factor=factor),
            lambda: [Sample(inputs())],
            errors=REFUSED[form],
            tolerance=256.0,
        )
        for form, op in {"blocks": by_blocks, "matrices": by_matrices, "distances": by_distances}.items()
        for name, (window, factor) in SETTINGS.items()
        if form == "blocks" or name == "leaky"
    ),
    OpInfo(
        "merge_attention",
        merged,
        merged_weights,
        lambda: [Sample(parts())],
        lambda: [Sample((*parts()[:2], torch.full((2, 3), 800.0).double(), torch.full((2, 3), -800.0).double()))],
        errors=REFUSED["merge"],
    ),
]
