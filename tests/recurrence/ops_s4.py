"""The operators of s4; references: NumPy's convolution, dense matrices and their powers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from torch import Tensor

from kexue_lib.recurrence import s4

WIDE = (torch.float64, torch.float32)  # there is no complex bfloat16
LENGTH = 7


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signals() -> Iterator[Sample]:
    for length in (5, 8):
        yield Sample((drawn(2, 3, length, seed=length), drawn(2, 3, length, seed=length + 1)))


def convolved(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.stack([np.convolve(x, y)[: len(x)] for x, y in zip(u, k)])


def pairs(count: int) -> Iterator[Sample]:
    """Rates and frequencies, complex vectors by their parts, and the logarithm of the step."""
    for seed in (0, 50):
        parts = [drawn(2, 3, seed=seed + i) / 2 for i in range(2 + 2 * count)]
        parts[1] = parts[1].abs() * 8
        yield Sample((*parts, drawn(2, 1, seed=seed + 40) / 2 - 2))


def diagonal(rate, frequency, b_real, b_imag, c_real, c_imag, log_dt, method="zoh"):
    Lam, B, C = (torch.complex(x, y) for x, y in ((-rate.exp(), frequency), (b_real, b_imag), (c_real, c_imag)))
    return s4.s4d_kernel(Lam, B, C, log_dt[..., 0].exp(), LENGTH, method=method)


def discrete(A: np.ndarray, B: np.ndarray, dt: float, method: str = "bilinear") -> tuple[np.ndarray, np.ndarray]:
    eye = np.eye(len(A))
    if method == "zoh":
        lam = np.diag(A)
        return np.diag(np.exp(dt * lam)), (np.exp(dt * lam) - 1) / lam * B
    inverse = np.linalg.inv(eye - dt / 2 * A)
    return inverse @ (eye + dt / 2 * A), dt * inverse @ B


def powers(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    return np.array([C @ np.linalg.matrix_power(A, k) @ B for k in range(LENGTH)])


def with_powers(rate, frequency, b_real, b_imag, c_real, c_imag, log_dt, method="zoh"):
    A, B = discrete(np.diag(-np.exp(rate) + 1j * frequency), b_real + 1j * b_imag, np.exp(log_dt[0]), method)
    return 2 * powers(A, B, c_real + 1j * c_imag).real


def tied(rate, frequency, p_real, p_imag, b_real, b_imag, c_real, c_imag, log_dt):
    parts = ((-rate.exp(), frequency), (p_real, p_imag), (b_real, b_imag), (c_real, c_imag))
    return s4.s4_kernel(*(torch.complex(x, y) for x, y in parts), log_dt[..., 0].exp(), LENGTH)


def both(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, x.conj()])


def tied_with_powers(rate, frequency, p_real, p_imag, b_real, b_imag, c_real, c_imag, log_dt):
    Lam, P, B, Ct = map(
        both, (-np.exp(rate) + 1j * frequency, p_real + 1j * p_imag, b_real + 1j * b_imag, c_real + 1j * c_imag)
    )
    A, B = discrete(np.diag(Lam) - np.outer(P, P.conj()), B, np.exp(log_dt[0]))
    C = np.linalg.solve((np.eye(len(A)) - np.linalg.matrix_power(A, LENGTH)).T, Ct)
    return powers(A, B, C).real


def stepped(x_real, x_imag, u, rate, frequency, p_real, p_imag, q_real, q_imag, b_real, b_imag, log_dt):
    parts = ((-rate.exp(), frequency), (p_real, p_imag), (q_real, q_imag), (b_real, b_imag))
    x = s4.dplr_step(
        torch.complex(x_real, x_imag), u[..., 0], *(torch.complex(*pair) for pair in parts), log_dt[..., 0].exp()
    )
    return torch.stack([x.real, x.imag], -1)


def stepped_densely(x_real, x_imag, u, rate, frequency, p_real, p_imag, q_real, q_imag, b_real, b_imag, log_dt):
    A = np.diag(-np.exp(rate) + 1j * frequency) - np.outer(p_real + 1j * p_imag, q_real + 1j * q_imag)
    A, B = discrete(A, b_real + 1j * b_imag, np.exp(log_dt[0]))
    x = A @ (x_real + 1j * x_imag) + B * u
    return np.stack([x.real, x.imag], -1)


def states() -> Iterator[Sample]:
    first = next(iter(pairs(3))).inputs
    yield Sample((drawn(2, 3, seed=90), drawn(2, 3, seed=91), drawn(2, 1, seed=92), *first))


ONES, POLES = torch.ones(3), -torch.ones(3) + 1j
DIAGONAL = {"Lam": POLES, "B": POLES, "C": POLES, "dt": 0.1, "L": 7}
TIED = {"Lam": POLES, "P": POLES, "B": POLES, "Ct": POLES, "dt": 0.1, "L": 7}
STEP = {"x": POLES, "u": ONES[0], "Lam": POLES, "P": POLES, "Q": POLES, "B": POLES, "dt": 0.1}
REFUSED = {
    "conv": spoiled(
        s4.causal_conv,
        {"u": ONES, "k": ONES},
        ({"u": ONES.long()}, TypeError, "u: got torch.int64"),
        ({"k": POLES}, TypeError, "k: got torch.complex64"),
        ({"u": ONES[0]}, ValueError, "u: got shape ()"),
        ({"k": ONES[:2]}, ValueError, "k: got shape (2,)"),
    ),
    "diagonal": spoiled(
        s4.s4d_kernel,
        DIAGONAL,
        ({"Lam": ONES.long()}, TypeError, "Lam: got torch.int64"),
        ({"C": ONES.long()}, TypeError, "C: got torch.int64"),
        ({"B": POLES[:2]}, ValueError, "B: got shape (2,)"),
        ({"Lam": POLES[0]}, ValueError, "Lam: got shape ()"),
        ({"dt": -0.1}, ValueError, "dt: got -0.1"),
        ({"L": 0}, ValueError, "L: got 0"),
        ({"method": "euler"}, ValueError, "method: got 'euler'"),
    ),
    "tied": spoiled(
        s4.s4_kernel,
        TIED,
        ({"Lam": ONES}, TypeError, "Lam: got torch.float32"),
        ({"P": ONES.long()}, TypeError, "P: got torch.int64"),
        ({"Ct": POLES[:2]}, ValueError, "Ct: got shape (2,)"),
        ({"dt": 0.0}, ValueError, "dt: got 0.0"),
        ({"L": 1.5}, TypeError, "L: got 1.5"),
    ),
    "step": spoiled(
        s4.dplr_step,
        STEP,
        ({"x": ONES.long()}, TypeError, "x: got torch.int64"),
        ({"u": ONES[0].long()}, TypeError, "u: got torch.int64"),
        ({"Q": POLES[:2]}, ValueError, "Q: got shape (2,)"),
        ({"dt": torch.zeros(())}, ValueError, "dt: got 0.0"),
        ({"dt": -0.1}, ValueError, "dt: got -0.1"),
    ),
}

OPS = [
    OpInfo("causal_conv", s4.causal_conv, convolved, signals, errors=REFUSED["conv"]),
    OpInfo("s4d_kernel", diagonal, with_powers, lambda: pairs(2), errors=REFUSED["diagonal"], dtypes=WIDE),
    OpInfo(
        "s4d_kernel_bilinear",
        lambda *x: diagonal(*x, method="bilinear"),
        lambda *x: with_powers(*x, method="bilinear"),
        lambda: pairs(2),
        errors=REFUSED["diagonal"],
        dtypes=WIDE,
    ),
    OpInfo("s4_kernel", tied, tied_with_powers, lambda: pairs(3), errors=REFUSED["tied"], dtypes=WIDE),
    OpInfo("dplr_step", stepped, stepped_densely, states, errors=REFUSED["step"], dtypes=WIDE),
]
