"""Three ways to move particles towards a density: noise, a smoothed cloud, a kernel."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib.optimization.gradient_flow._derivatives import Scalar, check_point, check_value, gradient
from kexue_lib.optimization.gradient_flow._kernels import kde_score, svgd_velocity


class SampleResult(NamedTuple):
    """Last states `x` (*batch, d), stored ones `trace` (K, *batch, d), share of accepted proposals (*batch).

    K is 0 unless `thin` asks for more; acceptance is 1 where nothing is proposed.
    """

    x: Tensor
    trace: Tensor
    acceptance: Tensor


def langevin(
    log_prob: Scalar,
    x0: Float[Tensor, "*batch d"],
    *,
    step: float,
    n_steps: int,
    method: Literal["ula", "mala"] = "ula",
    thin: int = 0,
    generator: torch.Generator | None = None,
) -> SampleResult:
    r"""Run :math:`x\leftarrow x+\eta\nabla\log p(x)+\sqrt{2\eta}\,z` in independent chains.

    "ula" takes every step, and samples p up to a bias of order η. "mala" accepts it with the Metropolis-Hastings
    probability, and has no bias.

    Args:
        log_prob: maps (..., d) to log p (...) up to a constant, rows independently.
        x0: first states (*batch, d), a chain each.
        step: η > 0.
        n_steps: number of steps.
        method: "ula" (default) or "mala".
        thin: k > 0 stores every k-th state, n_steps // k of them; 0 none.
        generator: source of the noise; the same state gives the same result.

    Returns:
        A :class:`SampleResult`, detached.

    Raises:
        TypeError: x0 is not floating, a number is none.
        ValueError: step ≤ 0, n_steps or thin < 0, another method, log_prob returns another shape.

    Cost: one gradient and one `randn` for each step, with mala one `rand` more; no wait for the device. torch.compile
    breaks the graph at the gradient.
    Source: Roberts & Tweedie, Bernoulli 1996.

    >>> normal = lambda x: -x.square().sum(-1) / 2
    >>> run = langevin(normal, torch.zeros(1000, 2), step=0.1, n_steps=60, generator=torch.Generator().manual_seed(0))
    >>> bool((run.x.var(0) - 1 / 0.95).abs().max() < 0.15)
    True
    """
    check_point("x0", x0)
    _check_run(step, n_steps)
    check_integer("thin", thin, 0)
    check_one_of("method", method, ("ula", "mala"))
    check_value("log_prob: value", log_prob, x0)
    x = x0.detach().clone()
    accepted, trace = torch.zeros_like(x[..., 0]), []
    state = gradient(log_prob, x) if method == "mala" else None
    scale = math.sqrt(2 * step)
    for index in range(n_steps):
        slope = gradient(log_prob, x)[1] if state is None else state[1]
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        there = x + step * slope + scale * noise
        if state is None:
            x = there
        else:
            x, state, taken = _metropolis(log_prob, x, there, state, noise, step, generator)
            accepted += taken
        if thin and (index + 1) % thin == 0:
            trace.append(x)
    share = accepted / max(n_steps, 1) if method == "mala" else torch.ones_like(accepted)
    return SampleResult(x, torch.stack(trace) if trace else x.new_empty((0, *x.shape)), share)


def svgd(
    log_prob: Scalar,
    x0: Float[Tensor, "*batch n d"],
    *,
    step: float,
    n_steps: int,
    bandwidth: float | None = None,
    adagrad: bool = True,
) -> SampleResult:
    r"""Move particles by Stein variational gradient descent, :math:`x_i\leftarrow x_i+\eta\phi_i`.

    Args:
        log_prob: maps (..., d) to log p (...) up to a constant, rows independently.
        x0: particles (*batch, n, d), each batch entry a cloud of its own.
        step: η > 0.
        n_steps: number of steps.
        bandwidth: that of :func:`svgd_velocity`; None: the median rule at every step.
        adagrad: divide φ by the root of a running mean of its squares (decay 0.9, as in the authors' code): moves are
            then about η whatever the size of φ, and do not settle below it. False: φ itself.

    Returns:
        A :class:`SampleResult`, detached, without trace.

    Raises:
        TypeError: x0 is not floating, a number is none.
        ValueError: step ≤ 0, n_steps < 0, bandwidth ≤ 0, log_prob returns another shape.

    Cost: for each step one gradient and :func:`svgd_velocity`.
    Source: Liu & Wang, arXiv:1608.04471, Algorithm 1.

    >>> normal = lambda x: -x.square().sum(-1) / 2
    >>> svgd(normal, torch.tensor([[1.0], [3.0]]), step=0.5, n_steps=200, adagrad=False).x.mean().abs() < 1e-3
    tensor(True)
    """
    check_point("x0", x0, 2)
    _check_run(step, n_steps)
    check_value("log_prob: value", log_prob, x0)
    x, history = x0.detach().clone(), None
    for _ in range(n_steps):
        move = svgd_velocity(x, gradient(log_prob, x)[1], bandwidth=bandwidth)
        if adagrad:
            square = move.square()
            history = square if history is None else 0.9 * history + 0.1 * square
            move = move / (1e-6 + history.sqrt())
        x = x + step * move
    return SampleResult(x, x.new_empty((0, *x.shape)), torch.ones_like(x[..., 0]))


def particle_flow(
    log_prob: Scalar, x0: Float[Tensor, "n d"], *, step: float, n_steps: int, bandwidth: float
) -> SampleResult:
    r"""Run Euler's method on :math:`\dot x=\nabla\log p-\nabla\log q`, q the particles smoothed by a Gaussian.

    Deterministic. It settles where the smoothed cloud resembles p: on a Gaussian of variance σ² at variance
    :math:`\sigma^2-h^2` for many particles.

    Args:
        log_prob: maps (..., d) to log p (...) up to a constant, rows independently.
        x0: particles (n, d).
        step: length of a step, > 0; stable below about 2h².
        n_steps: number of steps.
        bandwidth: h > 0, see :func:`kde_score`.

    Returns:
        A :class:`SampleResult`, detached, without trace.

    Raises:
        TypeError: x0 is not floating, a number is none.
        ValueError: step ≤ 0, n_steps < 0, bandwidth ≤ 0, x0 is not (n, d), log_prob returns another shape.

    Cost: for each step one gradient and :func:`kde_score`.
    Source: the article; Liu et al., arXiv:1807.01750.

    >>> normal = lambda x: -x.square().sum(-1) / 2
    >>> particle_flow(normal, torch.full((1, 1), 2.0), step=0.5, n_steps=1, bandwidth=0.5).x
    tensor([[1.]])
    """
    check_point("x0", x0, 2)
    if x0.dim() != 2:
        raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected (n, d)")
    _check_run(step, n_steps)
    check_value("log_prob: value", log_prob, x0)
    x = x0.detach().clone()
    for _ in range(n_steps):
        x = x + step * (gradient(log_prob, x)[1] - kde_score(x, bandwidth))
    return SampleResult(x, x.new_empty((0, *x.shape)), torch.ones_like(x[..., 0]))


def _metropolis(
    log_prob: Scalar,
    x: Tensor,
    there: Tensor,
    state: tuple[Tensor, Tensor],
    noise: Tensor,
    step: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Accept or stay: next states, their values and slopes, and which proposals were taken."""
    value, slope = state
    proposed = gradient(log_prob, there)
    backward = (x - there - step * proposed[1]).square().sum(-1) / (4 * step)
    forward = noise.square().sum(-1) / 2
    log_ratio = proposed[0] - value - backward + forward
    uniform = torch.rand(value.shape, dtype=x.dtype, device=x.device, generator=generator)
    taken = uniform.log() < log_ratio
    row = taken.unsqueeze(-1)
    after = torch.where(taken, proposed[0], value), torch.where(row, proposed[1], slope)
    return torch.where(row, there, x), after, taken


def _check_run(step: float, n_steps: int) -> None:
    check_number("step", step, above=0, below=math.inf)
    check_integer("n_steps", n_steps, 0)
