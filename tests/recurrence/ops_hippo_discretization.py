"""The operators of hippo_discretization; references: SciPy, dense solves, exact integrals, plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from scipy.linalg import expm
from scipy.signal import cont2discrete
from torch import Tensor

from kexue_lib.recurrence import hippo_discretization as hd

SCIPY = {"forward": "euler", "backward": "backward_diff", "bilinear": "bilinear", "gbt": "gbt", "zoh": "zoh"}


def legs(N: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrices entry by entry."""
    odd = [2 * n + 1 for n in range(N)]
    A = [[-math.sqrt(odd[n] * odd[k]) if k < n else -(n + 1.0) * (k == n) for k in range(N)] for n in range(N)]
    return np.array(A), np.sqrt(2.0 * np.array(odd))


def by_scipy(A: np.ndarray, B: np.ndarray, dt: float, method: str, alpha: float = 0.5) -> np.ndarray:
    """[Ā, B̄]; SciPy's alpha is the weight of the end of the step."""
    N = len(A)
    system = (A, B[:, None], np.eye(N), np.zeros((N, 1)))
    out = cont2discrete(system, dt, SCIPY[method], **({"alpha": 1 - alpha} if method == "gbt" else {}))
    return np.concatenate(out[:2], 1)


def stepped(A: Tensor, B: Tensor, method: str, dt: float) -> Tensor:
    Ad, Bd = hd.discretize(A, B, dt, method)
    return torch.cat([Ad, Bd[..., None]], -1)


def loop(u: np.ndarray, N: int, method: str) -> np.ndarray:
    """LegS one sample after the other, with full matrices."""
    A, B = legs(N)
    eye, x = np.eye(N), math.sqrt(2) * u[0] * np.eye(N)[0]
    out = [x]
    for k in range(1, len(u)):
        if method == "forward":
            x = x + (A @ x + B * u[k]) / k
        elif method == "backward":
            x = np.linalg.solve(eye - A / (k + 1), x + B * u[k] / (k + 1))
        else:
            weight = 1 / k if method == "bilinear_article" else (1 / k + 1 / (k + 1)) / 2
            x = np.linalg.solve(eye - A / (2 * (k + 1)), (eye + A / (2 * k)) @ x + weight * B * u[k])
        out.append(x)
    return np.stack(out)


def staircase(u: np.ndarray, N: int) -> np.ndarray:
    """Exact coefficients of the held samples after each of them, from NumPy's Legendre series."""
    p = [np.polynomial.Legendre.basis(n) * math.sqrt(n + 0.5) for n in range(N)]
    edges = [np.arange(K + 1) * 2 / K - 1 for K in range(1, len(u) + 1)]
    return np.array([[(u[: len(e) - 1] * np.diff(g.integ(lbnd=-1)(e))).sum() for g in p] for e in edges])


def dense_solve(v: np.ndarray, lam: np.ndarray) -> np.ndarray:
    A, _ = legs(v.shape[-1])
    return np.stack([np.linalg.solve(np.eye(len(A)) - rate * A, x) for x, rate in zip(v, lam)])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def streams() -> Iterator[Sample]:
    yield Sample((drawn(2, 7),))
    yield Sample((drawn(3, 1, seed=1),))


def systems() -> Iterator[Sample]:
    yield Sample((drawn(2, 3, 3), drawn(2, 3, seed=1)))


def vectors(rates: bool) -> Iterator[Sample]:
    for N in (1, 6):
        v = drawn(2, 2, N, seed=N)
        yield Sample((v, torch.tensor([[0.3, 2.0], [0.1, 40.0]], dtype=torch.float64)) if rates else (v,))


SQUARE, VECTOR = -torch.eye(3), torch.ones(3)
STREAM = {"u": VECTOR, "N": 4}
SAMPLES = [
    ({"u": torch.arange(3)}, TypeError, "u: got torch.int64"),
    ({"u": torch.tensor(1.0)}, ValueError, "u: got shape ()"),
    ({"N": 0}, ValueError, "N: got 0"),
    ({"scaling": "unit"}, ValueError, "scaling: got 'unit'"),
]
REFUSED = {
    "discretize": spoiled(
        hd.discretize,
        {"A": SQUARE, "B": VECTOR, "dt": 0.1},
        ({"method": "tustin"}, ValueError, "method: got 'tustin'"),
        ({"dt": 0.0}, ValueError, "dt: got 0.0"),
        ({"dt": torch.tensor([0.1, -1.0])}, ValueError, "dt: got -1.0"),
        ({"method": "gbt", "alpha": 1.5}, ValueError, "alpha: got 1.5"),
        ({"A": torch.ones(2, 3)}, ValueError, "A: got shape (2, 3)"),
        ({"B": torch.ones(2)}, ValueError, "B: got shape (2,)"),
        ({"A": SQUARE.int()}, TypeError, "A: got torch.int32"),
        ({"A": torch.ones(0, 0), "B": torch.ones(0)}, ValueError, "A: got 0 rows"),
    ),
    "matvec": spoiled(
        hd.legs_matvec,
        {"v": VECTOR},
        ({"v": torch.arange(3)}, TypeError, "v: got torch.int64"),
        ({"v": torch.ones(0)}, ValueError, "v: got shape (0,)"),
    ),
    "solve": spoiled(
        hd.legs_solve,
        {"v": VECTOR, "lam": 0.5},
        ({"v": torch.arange(3)}, TypeError, "v: got torch.int64"),
        ({"v": torch.ones(0)}, ValueError, "v: got shape (0,)"),
        ({"lam": -0.1}, ValueError, "lam: got -0.1"),
        ({"lam": torch.ones(2)}, ValueError, "lam: got shape (2,)"),
    ),
    "transition": spoiled(
        hd.legs_transition,
        {"N": 3, "r": 2 * VECTOR},
        ({"N": 0}, ValueError, "N: got 0"),
        ({"r": 0.5}, ValueError, "r: got 0.5"),
        ({"r": VECTOR > 0}, TypeError, "r: got torch.bool"),
    ),
    "scan": spoiled(
        hd.legs_scan,
        STREAM,
        *SAMPLES,
        ({"method": "euler"}, ValueError, "method: got 'euler'"),
        ({"u": torch.ones(2, 0), "return_all": False}, ValueError, "u: got shape (2, 0)"),
    ),
    "staircase": spoiled(
        hd.legs_project_staircase,
        STREAM,
        *SAMPLES,
        ({"u": torch.ones(0)}, ValueError, "u: got shape (0,)"),
        ({"at": [4]}, ValueError, "at: got 4"),
        ({"at": [0]}, ValueError, "at: got 0"),
    ),
}

OPS = [
    *(
        OpInfo(
            f"discretize_{method}",
            partial(stepped, method=method, dt=0.3),
            partial(by_scipy, method=method, dt=0.3),
            systems,
            errors=REFUSED["discretize"],
            half_tolerance=4.0,
        )
        for method in ("forward", "bilinear", "zoh")
    ),
    OpInfo(
        "legs_matvec",
        hd.legs_matvec,
        lambda v: v @ legs(v.shape[-1])[0].T,
        partial(vectors, False),
        errors=REFUSED["matvec"],
    ),
    OpInfo(
        "legs_solve",
        hd.legs_solve,
        dense_solve,
        partial(vectors, True),
        errors=REFUSED["solve"],
    ),
    OpInfo(
        "legs_transition",
        lambda r: hd.legs_transition(4, r, dtype=r.dtype),
        lambda r: np.stack([expm(legs(4)[0] * math.log(x)) for x in r]),
        lambda: iter([Sample((torch.tensor([[1.5, 3.0], [1.1, 9.0]], dtype=torch.float64),))]),
        lambda: iter([Sample((torch.tensor([[1.0, 1e4], [1.0, 1.0]], dtype=torch.float64),))]),
        errors=REFUSED["transition"],
        any_shape=True,
    ),
    *(
        OpInfo(
            f"legs_scan_{method}",
            partial(hd.legs_scan, N=4, method=method),
            partial(staircase, N=4) if method == "zoh" else partial(loop, N=4, method=method),
            streams,
            errors=REFUSED["scan"],
            compiles=False,
        )
        for method in ("forward", "backward", "bilinear", "bilinear_article", "zoh")
    ),
    OpInfo(
        "legs_scan_last",
        partial(hd.legs_scan, N=4, return_all=False),
        lambda u: loop(u, 4, "bilinear")[-1],
        streams,
        errors=REFUSED["scan"],
        compiles=False,
    ),
    OpInfo(
        "legs_project_staircase",
        lambda u: hd.legs_project_staircase(u, 4, range(1, u.shape[-1] + 1)),
        partial(staircase, N=4),
        streams,
        errors=REFUSED["staircase"],
    ),
]
