"""The kernels of S4 beside the plain formulas, a convolution beside a scan over every state, and a step.

Run: python -m benchmarks.recurrence.bench_s4 [--save]
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Report
from kexue_lib.recurrence import s4
from kexue_lib.recurrence.scan import linear_scan

H, N, L = 256, 64, 4096


def drawn(channels: int) -> tuple[Tensor, ...]:
    """Poles, P and B of LegS, truncated readouts and steps of some channels, complex64."""
    Lam, P, B, _ = (x.to(torch.complex64) for x in s4.legs_dplr(N))
    Ct = torch.randn(channels, N, dtype=torch.complex64)
    dt = torch.empty(channels).uniform_(math.log(1e-3), math.log(0.1)).exp()
    return Lam, P, B, Ct, dt


def plain_cauchy(Lam: Tensor, P: Tensor, B: Tensor, Ct: Tensor, dt: Tensor, length: int) -> Tensor:
    """All roots, all poles, four sums over one table, a channel at a time."""
    angle = torch.arange(length) * (math.pi / length)
    sin, cos = angle.sin(), angle.cos()
    kernels = []
    for readout, step in zip(Ct, dt):
        table = 2j * sin[:, None] - (step * cos)[:, None] * Lam
        cb, cp, qb, qp = ((x / table).sum(-1) for x in (readout * B, readout * P, P.conj() * B, P.conj() * P))
        value = cb - step * cos * cp * qb / (1 + step * cos * qp)
        kernels.append(torch.fft.ifft(step * torch.complex(cos, sin) * value))
    return torch.stack(kernels).real


def giant_steps(Lam: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    """Powers of the dense real matrix, k = qc + r: columns for r and rows for q, doubled, and one product of both.

    One pole of each pair, and the readout itself instead of the truncated one.
    """
    two = lambda x, y: math.sqrt(2) * torch.cat([x, y], -1)
    column, source, readout = two(P.real, P.imag), two(B.real, B.imag), two(C.real, -C.imag)
    decay, turn = torch.diag(Lam.real), torch.diag(Lam.imag)
    A = torch.cat([torch.cat([decay, -turn], 1), torch.cat([turn, decay], 1)]) - torch.outer(column, column)
    eye, half = torch.eye(N), dt[:, None, None] / 2 * A
    driven = dt[:, None, None] * source[:, None]
    both = torch.linalg.solve(eye - half, torch.cat([eye + half, driven], -1))
    power, columns, rows = both[..., :N], both[..., N:], readout[:, None]
    while columns.shape[-1] ** 2 < length:
        columns, power = torch.cat([columns, power @ columns], -1), power @ power
    while rows.shape[-2] * columns.shape[-1] < length:
        rows, power = torch.cat([rows, rows @ power], -2), power @ power
    return (rows @ columns).flatten(-2)[:, :length]


def plain_vandermonde(Lam: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    """One exponential for each channel, pole and position."""
    z = dt[:, None] * Lam
    weights = 2 * C * B * (z.exp() - 1) / Lam
    return torch.einsum("hn,hnl->hl", weights, (z[..., None] * torch.arange(length)).exp()).real


def trained(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """Forward and backward."""
    leaves = [x.clone().requires_grad_() for x in inputs]

    def step() -> None:
        out = function(*leaves)
        torch.autograd.grad(out, leaves, grad_outputs=torch.ones_like(out))

    return step


def compare_training(report: Report, batch: int, channels: int, length: int) -> None:
    """Of a diagonal layer: kernel and FFT, or a scan that keeps the state of every position."""
    Lam, _, B, C, dt = drawn(channels)
    Lam, B, C = Lam[N // 2 :].expand(channels, -1), B[N // 2 :].expand(channels, -1), C[:, N // 2 :]
    u = torch.randn(batch, channels, length)

    def convolved(u: Tensor, Lam: Tensor, C: Tensor) -> Tensor:
        return s4.causal_conv(u, s4.s4d_kernel(Lam, B, C, dt, length))

    def scanned(u: Tensor, Lam: Tensor, C: Tensor) -> Tensor:
        z = dt[:, None] * Lam
        inputs = (u.mT[..., None] * ((z.exp() - 1) / Lam * B)).flatten(-2)
        states = linear_scan(z.exp().flatten(), inputs).unflatten(-1, Lam.shape)
        return 2 * (states * C).sum(-1).real.mT

    torch.testing.assert_close(scanned(u, Lam, C), convolved(u, Lam, C), rtol=1e-3, atol=1e-3)
    report.compare(
        f"Layer, forward and backward, batch {batch}, {channels} channels, {N} states, {length} steps",
        {"kernel and FFT": trained(convolved, u, Lam, C), "linear_scan": trained(scanned, u, Lam, C)},
        baseline="kernel and FFT",
        rounds=7,
    )


def compare_step(report: Report, length: int) -> None:
    layer = s4.S4(H, N, l_max=length).eval()
    u, state = torch.randn(length, H), layer.initial_state()
    with torch.no_grad():
        report.compare(
            f"One more token after {length}, {H} channels, {N} states",
            {"step": lambda: layer.step(u[0], state), "forward over all": lambda: layer(u)},
            baseline="step",
            rounds=7,
        )


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("S4")
    Lam, P, B, Ct, dt = drawn(H)
    n = N // 2
    half = (Lam[n:], P[n:], B[n:], Ct[:, n:], dt, L)
    # Conjugate halves, so that the readout is one of a real system.
    paired = torch.cat([Ct[:, n:].flip(-1).conj(), Ct[:, n:]], -1).to(torch.complex128)
    Ab, _ = s4.discretize_dplr(*(x.to(torch.complex128) for x in (Lam, P, P.conj(), B)), dt.double())
    C = s4.recover_readout(paired, Ab, L)[:, n:].to(torch.complex64)
    expected = s4.s4_kernel(*half)
    torch.testing.assert_close(
        giant_steps(*half[:3], C, dt, L), expected, rtol=0.0, atol=1e-4 * expected.abs().max().item()
    )
    report.compare(
        f"Kernel of diagonal plus rank one, complex64, forward, {H} channels, {N} states, {L} steps",
        {
            "s4_kernel": lambda: s4.s4_kernel(*half),
            "dplr_kernel": lambda: s4.dplr_kernel(Lam, P, P.conj(), B, Ct, dt, L),
            "plain Cauchy sums": lambda: plain_cauchy(Lam, P, B, Ct, dt, L),
            "powers in giant steps": lambda: giant_steps(*half[:3], C, dt, L),
        },
        baseline="s4_kernel",
        rounds=7,
    )
    for length in (L // 4, 4 * L):
        report.compare(
            f"Kernel of diagonal plus rank one, the same at {length} steps",
            {
                "s4_kernel": lambda length=length: s4.s4_kernel(*half[:-1], length),
                "powers in giant steps": lambda length=length: giant_steps(*half[:3], C, dt, length),
            },
            baseline="s4_kernel",
            rounds=7,
        )
    report.compare(
        f"Kernel of a diagonal system, complex64, forward, {H} channels, {N} states, {L} steps",
        {
            "s4d_kernel": lambda: s4.s4d_kernel(Lam[n:], B[n:], Ct[:, n:], dt, L),
            "exp of a table": lambda: plain_vandermonde(Lam[n:], B[n:], Ct[:, n:], dt, L),
        },
        baseline="s4d_kernel",
        rounds=7,
    )
    few = drawn(16)
    Ab, Bb = s4.discretize_dplr(*few[:2], few[1].conj(), few[2], few[4])
    report.compare(
        f"Kernel, 16 channels, {N} states, 1024 steps",
        {
            "s4_kernel": lambda: s4.s4_kernel(*(x[..., n:] for x in few[:4]), few[4], 1024),
            "powers": lambda: s4.ssm_kernel_naive(Ab, Bb, few[3], 1024),
        },
        baseline="s4_kernel",
        rounds=7,
    )
    compare_training(report, 4, 16, 1024)
    for length in (256, 4096):
        compare_step(report, length)
    report.finish("recurrence/s4")


if __name__ == "__main__":
    main()
