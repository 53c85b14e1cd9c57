"""The operators of lru; references: sums over all pairs of steps in float64, and steps of the state by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

from kexue_lib.recurrence.lru import LRU, lru_eigenvalues, lru_gain, rwkv_mix


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def geometric_sum(r: np.ndarray, t: int) -> np.ndarray:
    return sum(r ** (2 * k) for k in range(t + 1))


def weighted_means(w: np.ndarray, bonus: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    out = []
    for t in range(len(k)):
        log_weights = np.stack([k[i] - w * (t - 1 - i) for i in range(t)] + [bonus + k[t]])
        weights = np.exp(log_weights - log_weights.max(0))
        out.append((weights * v[: t + 1]).sum(0) / weights.sum(0))
    return np.stack(out)


W, BONUS = drawn(3, seed=0).abs() + 0.1, drawn(3, seed=1)


def mixed(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return rwkv_mix(W.to(k), BONUS.to(k), k, v)


def mix_samples(spread: float) -> Callable[[], Iterator[Sample]]:
    def draw() -> Iterator[Sample]:
        for seed in (2, 10):
            yield Sample((drawn(2, 5, 3, seed=seed) * spread, drawn(2, 5, 3, seed=seed + 1)))

    return draw


def radii() -> Iterator[Sample]:
    yield Sample((torch.tensor([[0.1, 0.5], [0.9, 1.3]], dtype=torch.float64),))


def eigenvalue_parts(nu_log: torch.Tensor, theta_log: torch.Tensor) -> torch.Tensor:
    lam = lru_eigenvalues(nu_log, theta_log)
    return torch.stack([lam.real, lam.imag], -1)


def decayed_circle(nu_log: np.ndarray, theta_log: np.ndarray) -> np.ndarray:
    size, angle = np.exp(-np.exp(nu_log)), np.exp(theta_log)
    return np.stack([size * np.cos(angle), size * np.sin(angle)], -1)


def logarithms() -> Iterator[Sample]:
    yield Sample((drawn(2, 4, seed=0) - 1, drawn(2, 4, seed=1) - 1))


LAYER = LRU(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(False)


SINGLE = copy.deepcopy(LAYER).float()


def layer(u: torch.Tensor) -> torch.Tensor:
    return (LAYER if u.dtype == torch.float64 else SINGLE)(u)


def stepped(u: np.ndarray) -> np.ndarray:
    p = {name: x.numpy() for name, x in LAYER.state_dict().items()}
    lam = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    B = p["in_proj"][:4] + 1j * p["in_proj"][4:]
    C = p["out_proj"][:, :4] + 1j * p["out_proj"][:, 4:]
    x, out = np.zeros(4), []
    for row in u:
        x = lam * x + np.exp(p["gamma_log"]) * (B @ row)
        out.append((C @ x).real + p["D"] * row)
    return np.stack(out)


def inputs() -> Iterator[Sample]:
    yield Sample((drawn(2, 6, 3, seed=5),))


HALF, STEPS = torch.ones(3) / 2, torch.zeros(4, 3)
MIX = {"w": HALF, "bonus": HALF, "k": STEPS, "v": STEPS}
REFUSED = {
    "gain": spoiled(
        lru_gain,
        {"r": HALF},
        ({"r": HALF.long()}, TypeError, "r: got torch.int64"),
        ({"r": -HALF}, ValueError, "r: got -0.5"),
        ({"t": -1}, ValueError, "t: got -1"),
    ),
    "eigenvalues": spoiled(
        lru_eigenvalues,
        {"nu_log": HALF, "theta_log": HALF},
        ({"nu_log": HALF.long()}, TypeError, "nu_log: got torch.int64"),
        ({"theta_log": HALF.cfloat()}, TypeError, "theta_log: got torch.complex64"),
        ({"theta_log": torch.ones(2)}, ValueError, "theta_log: got shape (2,)"),
    ),
    "mix": spoiled(
        rwkv_mix,
        MIX,
        ({"k": STEPS.long()}, TypeError, "k: got torch.int64"),
        ({"k": HALF}, ValueError, "k: got shape (3,)"),
        ({"w": 0 * HALF}, ValueError, "w: got 0.0"),
        ({"v": torch.zeros(5, 3)}, ValueError, "v: got shape (5, 3)"),
        ({"w": torch.ones(2)}, ValueError, "w: got shape (2,)"),
        ({"bonus": torch.ones(2)}, ValueError, "bonus: got shape (2,)"),
    ),
    "layer": spoiled(
        SINGLE.forward,
        {"u": STEPS},
        ({"u": STEPS.cfloat()}, TypeError, "u: got torch.complex64"),
        ({"u": STEPS[:, :2]}, ValueError, "u: got shape (4, 2)"),
        ({"u": HALF}, ValueError, "u: got shape (3,)"),
        ({"state": torch.zeros(2)}, ValueError, "state: got shape (2,)"),
    ),
}

OPS = [
    OpInfo(
        "lru_gain", partial(lru_gain, t=6), partial(geometric_sum, t=6), radii, errors=REFUSED["gain"], any_shape=True
    ),
    OpInfo(
        "lru_eigenvalues",
        eigenvalue_parts,
        decayed_circle,
        logarithms,
        errors=REFUSED["eigenvalues"],
        dtypes=(torch.float64, torch.float32),
    ),
    OpInfo(
        "rwkv_mix",
        mixed,
        partial(weighted_means, W.numpy(), BONUS.numpy()),
        mix_samples(1.0),
        mix_samples(1000.0),
        errors=REFUSED["mix"],
    ),
    OpInfo("LRU", layer, stepped, inputs, errors=REFUSED["layer"], autocast=True),
]
