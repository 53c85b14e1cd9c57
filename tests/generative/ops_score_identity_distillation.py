"""The operators of score_identity_distillation; references: norms, averages, a covariance matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled

from kexue_lib.generative import score_identity_distillation as sid

WIDE = (torch.float64, torch.float32)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_norms(teacher: np.ndarray, student: np.ndarray, eps: np.ndarray, lam: float) -> np.ndarray:
    """By polarisation: only squared norms."""
    square = lambda v: float(np.square(v).sum())
    gap, miss = teacher - student, teacher - eps
    inner = (square(gap + miss) - square(gap - miss)) / 4
    return np.asarray(inner - lam * square(gap))


def triples() -> Iterator[Sample]:
    for seed, lam in enumerate((0.5, 1.0, 1.2)):
        yield Sample(tuple(normal(3, 4, seed=3 * seed + k) for k in range(3)), {"lam": lam})


def regression(x: np.ndarray, mean: float, var: float, a: float, b: float) -> np.ndarray:
    """E[ε | x] of a joint Gaussian, from its covariance matrix."""
    joint = np.array([[a * a * var + b * b, b], [b, 1.0]])  # of x_t and ε
    return joint[1, 0] / joint[0, 0] * (x - a * mean)


def of_rows(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The loss of samples that are rows, with any number of batch dimensions."""

    def op(*eps: torch.Tensor, **options: float) -> torch.Tensor:
        return loss(*(x.reshape(-1, x.shape[-1]) for x in eps), **options).reshape(eps[0].shape[:-1])

    return op


ROWS, NAN = torch.zeros(2, 3), float("nan")
NOISES = {"eps_teacher": ROWS, "eps_student": ROWS, "eps": ROWS}
ALIKE = [
    ({"eps_teacher": ROWS[0, 0]}, ValueError, "eps_teacher: got a tensor without dimensions"),
    ({"eps_student": ROWS.long()}, TypeError, "eps_student: got torch.int64"),
    ({"eps": ROWS[:, :2]}, ValueError, "eps_teacher, eps_student, eps: got shapes (2, 3), (2, 3), (2, 2)"),
]
REFUSED = {
    "loss": spoiled(
        sid.sid_loss,
        NOISES,
        *ALIKE,
        ({"lam": NAN}, ValueError, "lam: got nan"),
        ({"lam": "1"}, TypeError, "lam: got '1'"),
    ),
    "x0": spoiled(
        sid.sid_loss_x0,
        {"x0_teacher": ROWS, "x0_student": ROWS, "x0": ROWS},
        ({"x0_teacher": ROWS.long()}, TypeError, "x0_teacher: got torch.int64"),
        ({"x0": ROWS[:, :2]}, ValueError, "x0_teacher, x0_student, x0: got shapes (2, 3), (2, 3), (2, 2)"),
        ({"lam": NAN}, ValueError, "lam: got nan"),
    ),
    "fgm": spoiled(
        sid.fgm_loss,
        NOISES,
        *ALIKE,
    ),
    "gaussian": spoiled(
        sid.gaussian_eps,
        {"x_t": ROWS, "mean": 0.0, "var": 1.0, "a": 1.0, "b": 1.0},
        ({"x_t": ROWS.long()}, TypeError, "x_t: got torch.int64"),
        ({"mean": "1"}, TypeError, "mean: got '1'"),
        ({"var": -1.0}, ValueError, "var: got -1.0"),
        ({"a": 0}, ValueError, "a: got 0"),
        ({"b": -1.0}, ValueError, "b: got -1.0"),
    ),
}

OPS = [
    OpInfo("sid_loss", of_rows(sid.sid_loss), by_norms, triples, errors=REFUSED["loss"], dtypes=WIDE, tolerance=256.0),
    OpInfo(
        "sid_loss_x0", of_rows(sid.sid_loss_x0), by_norms, triples, errors=REFUSED["x0"], dtypes=WIDE, tolerance=256.0
    ),
    OpInfo(
        "fgm_loss",
        of_rows(sid.fgm_loss),
        lambda *eps: 2 * by_norms(*eps, lam=0.5),
        lambda: [Sample(tuple(normal(3, 4, seed=k) for k in range(3)))],
        errors=REFUSED["fgm"],
        dtypes=WIDE,
        tolerance=256.0,
    ),
    OpInfo(
        "gaussian_eps",
        sid.gaussian_eps,
        regression,
        lambda: [Sample((normal(3, 4),), {"mean": 0.7, "var": 0.3, "a": 0.8, "b": 0.5})],
        errors=REFUSED["gaussian"],
        any_shape=True,
    ),
]
