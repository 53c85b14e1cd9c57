"""The two trainable forms of score matching: against the score of the noise, and by integration by parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_one_of, check_shape
from kexue_lib.generative.score_matching._schedules import VESchedule, VPSchedule

WEIGHTINGS = ("sigma2", "none", "likelihood")


def denoising_score_matching_loss(
    model: Callable[[Tensor, Tensor], Tensor],
    x0: Float[Tensor, "B *shape"],
    t: Float[Tensor, " B"],
    schedule: VPSchedule | VESchedule,
    *,
    noise: Float[Tensor, "B *shape"] | None = None,
    weighting: str = "sigma2",
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    r"""Return the loss of denoising (conditional) score matching, one number for each sample.

    .. math:: \ell=\lambda(t)\,\|\psi(x_t,t)+\varepsilon/\sigma\|^2,\qquad x_t=\alpha x_0+\sigma\varepsilon

    −ε/σ is the conditional score. The expectation exceeds E λ‖∇log p_t − ψ‖² by a constant that no model can change
    (:func:`conditional_score_gap`).

    Args:
        model: ``model(x_t, t)`` returns a score of the shape of ``x_t``.
        x0: data ``(B, ...)``.
        t: times ``(B,)``.
        schedule: gives α and σ.
        noise: ε of the shape of ``x0``; default: drawn.
        weighting: λ: ``"sigma2"`` σ², the loss in ε; ``"none"`` 1; ``"likelihood"`` g².
        generator: source of ε where ``noise`` is None; default: the global one.

    Returns:
        ``(B,)``, summed over the dimensions of a sample.

    Raises:
        TypeError: ``x0`` is not floating.
        ValueError: an unknown ``weighting``; ``t``, ``noise`` or the model's output of another shape.

    Cost: one call of the model. Source: article 9509; Vincent 2011, equation 9.

    >>> loss = denoising_score_matching_loss(lambda x, t: -x, torch.zeros(2, 3), torch.ones(2), VPSchedule())
    >>> loss.shape
    torch.Size([2])
    """
    check_dtype("x0", x0, "floating")
    if x0.dim() == 0:
        raise ValueError("x0: got shape (), expected (B, ...)")
    check_dtype("t", t, "floating")
    check_shape("t", t, (len(x0),), "as x0 has rows")
    check_one_of("weighting", weighting, WEIGHTINGS)
    if noise is None:
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
    check_dtype("noise", noise, "floating")
    check_shape("noise", noise, tuple(x0.shape), "as x0 has")
    column = (len(x0),) + (1,) * (x0.dim() - 1)
    alpha, sigma = schedule.alpha(t).reshape(column), schedule.sigma(t).reshape(column)
    score = model(alpha * x0 + sigma * noise, t)
    check_shape("model", score, tuple(x0.shape), "as x0 has")
    # σψ + ε instead of ψ + ε/σ: both terms stay of order 1 as σ → 0.
    loss = (sigma * score + noise).square().flatten(1).sum(1)
    if weighting == "sigma2":
        return loss
    sigma_squared = schedule.sigma(t).square()
    return loss / sigma_squared if weighting == "none" else loss * schedule.diffusion_squared(t) / sigma_squared


def implicit_score_matching_loss(
    model: Callable[[Tensor], Tensor],
    x: Float[Tensor, "B d"],
    *,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    r"""Return Hyvärinen's form of the score matching loss, which needs no score of the data.

    .. math:: \ell=\|\psi(x)\|^2+2\,\nabla\!\cdot\psi(x), \qquad
              E\,\ell=E\|\nabla\log p-\psi\|^2-E\|\nabla\log p\|^2

    Args:
        model: ``model(x)`` returns ``(B, d)``, each row from its own row of ``x`` only.
        x: samples of p, ``(B, d)``.
        probes: None: the exact divergence, d derivatives along the axes; m: the mean of vᵀ(∂ψ/∂x)v over m vectors v
            of random signs (Hutchinson), unbiased.
        generator: source of the signs; default: the global one.

    Returns:
        ``(B,)``.

    Raises:
        TypeError: ``x`` is not floating, ``probes`` no integer.
        ValueError: ``probes`` < 1, or a model's output of another shape.

    Cost: d (or m) forward-mode derivatives of the model, vectorised: d (or m) times its memory.
    Source: Hyvärinen 2005, theorem 1.

    >>> implicit_score_matching_loss(lambda x: -x, torch.ones(2, 3))
    tensor([-3., -3.])
    """
    check_dtype("x", x, "floating")
    check_shape("x", x, ("B", "d"))
    if probes is None:
        directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None].expand(-1, *x.shape)
    else:
        check_integer("probes", probes, 1)
        signs = torch.randint(2, (probes, *x.shape), generator=generator, device=x.device)
        directions = (2 * signs - 1).to(x.dtype)
    score = model(x)
    check_shape("model", score, tuple(x.shape), "as x has")

    curvature = torch.func.vmap(partial(_curvature, model, x), randomness="same")(directions)
    divergence = curvature.sum(0) if probes is None else curvature.mean(0)
    return score.square().sum(1) + 2 * divergence


def _curvature(model: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """vᵀ(∂ψ/∂x)v for each row."""
    return (torch.func.jvp(model, (x,), (v,))[1] * v).sum(1)
