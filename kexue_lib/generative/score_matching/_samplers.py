"""From noise to data: the probability-flow ODE, DDIM, and the reverse SDE."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.generative.ode import ode_step
from kexue_lib.generative.score_matching._schedules import VESchedule, VPSchedule

SAMPLERS = ("euler", "heun", "ddim")

Score = Callable[[Tensor, Tensor], Tensor]


def probability_flow_sample(
    score: Score,
    x: Float[Tensor, "B *shape"],
    schedule: VPSchedule | VESchedule,
    ts: Float[Tensor, " steps_and_one"],
    method: Literal["euler", "heun", "ddim"] = "heun",
) -> Float[Tensor, "B *shape"]:
    r"""Carry noise to data along the probability-flow ODE, whose solutions have the law p_t at every t.

    .. math:: \dot x=f(t)\,x-\tfrac12g(t)^2\,s(x,t)

    DDIM takes the denoised point and the noise as constant over a step from t to u; it is exact where they are:

    .. math:: x_u=\alpha_u\hat x_0+\sigma_u\hat\varepsilon,\quad \hat\varepsilon=-\sigma_ts,\quad
              \hat x_0=(x_t-\sigma_t\hat\varepsilon)/\alpha_t

    Args:
        score: ``score(x, t)`` with t ``(B,)`` returns ∇log p_t or a model of it.
        x: points at ``ts[0]``, ``(B, ...)``; from noise: ``σ(ts[0])`` times standard normal draws.
        schedule: gives α, σ, f and g².
        ts: times ``(m,)``, strictly decreasing.
        method: ``"euler"``, ``"heun"`` (default) or ``"ddim"``.

    Returns:
        Points at ``ts[-1]``.

    Raises:
        TypeError: ``x`` or ``ts`` is not floating.
        ValueError: ``ts`` not one-dimensional, empty or not strictly decreasing; an unknown ``method``.

    Cost: m − 1 calls of the score, twice as many for Heun; no wait for the device inside the loop.
    Source: arXiv 2011.13456, section 4.3; arXiv 2010.02502, equation 12 with η = 0.

    >>> schedule, x = VPSchedule(), torch.ones(1, 1)
    >>> data_at_zero = lambda x, t: -x / schedule.sigma(t)[:, None] ** 2
    >>> probability_flow_sample(data_at_zero, x, schedule, torch.tensor([1.0, 1e-3]), "ddim") < 0.02
    tensor([[True]])
    """
    check_one_of("method", method, SAMPLERS)
    _check_times(x, ts)

    velocity = partial(_velocity, score, schedule)
    for t, u in pairwise(ts):
        if method == "ddim":
            noise = -schedule.sigma(t) * score(x, t.expand(len(x)))
            data = (x - schedule.sigma(t) * noise) / schedule.alpha(t)
            x = schedule.alpha(u) * data + schedule.sigma(u) * noise
        else:
            x = ode_step(velocity, x, t, u - t, method)
    return x


def reverse_sde_sample(
    score: Score,
    x: Float[Tensor, "B *shape"],
    schedule: VPSchedule | VESchedule,
    ts: Float[Tensor, " steps_and_one"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B *shape"]:
    r"""Carry noise to data along the reverse SDE, by Euler and Maruyama.

    .. math:: dx=\big(f\,x-g^2s(x,t)\big)dt+g\,d\bar w

    Args:
        score: ``score(x, t)`` with t ``(B,)``.
        x: points at ``ts[0]``, ``(B, ...)``.
        schedule: gives f and g².
        ts: times ``(m,)``, strictly decreasing.
        generator: source of the noise; default: the global one. The last step adds none.

    Returns:
        Points at ``ts[-1]``.

    Raises:
        TypeError: ``x`` or ``ts`` is not floating.
        ValueError: ``ts`` not one-dimensional, empty or not strictly decreasing.

    Cost: m − 1 calls of the score. Source: arXiv 2011.13456, equation 6.

    >>> ts = torch.linspace(1.0, 1e-3, 5)
    >>> reverse_sde_sample(lambda x, t: -x, torch.ones(3, 2), VPSchedule(), ts).shape
    torch.Size([3, 2])
    """
    _check_times(x, ts)
    for k, (t, u) in enumerate(pairwise(ts)):
        g_squared = schedule.diffusion_squared(t)
        drift = schedule.drift(t) * x - g_squared * score(x, t.expand(len(x)))
        x = x + (u - t) * drift
        if k < len(ts) - 2:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + (g_squared * (t - u)).sqrt() * noise
    return x


def _velocity(score: Score, schedule: VPSchedule | VESchedule, x: Tensor, t: Tensor) -> Tensor:
    return schedule.drift(t) * x - schedule.diffusion_squared(t) / 2 * score(x, t.expand(len(x)))


def _check_times(x: Tensor, ts: Tensor) -> None:
    check_dtype("x", x, "floating")
    check_dtype("ts", ts, "floating")
    check_shape("ts", ts, ("m",))
    if len(ts) == 0:
        raise ValueError("ts: got no times, expected at least one")
    if ts.device.type == "cpu" and not is_traced() and not bool((ts[1:] < ts[:-1]).all()):
        raise ValueError(f"ts: got {ts[:4].tolist()} …, expected strictly decreasing times")
