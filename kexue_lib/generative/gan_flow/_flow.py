"""Samples that move along the gradient of a discriminator, alone or as the targets of a generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.generative.gan_flow._losses import TRANSFORMS
from kexue_lib.generative.ode import ode_step
from kexue_lib.optimization.gradient_flow import gaussian_flow

Word = Literal["linear", "exp", "saturating", "non_saturating"]


def flow_velocity(
    potential: Callable[[Tensor], Tensor],
    x: Float[Tensor, "*shape"],
    transform: Word = "linear",
    *,
    create_graph: bool = False,
) -> Float[Tensor, "*shape"]:
    r"""Velocity :math:`\nabla h(D(x))=h'(D(x))\,\nabla D(x)` of every sample of a batch, by one backward pass.

    Args:
        potential: D, maps (B, …) to (B,) or (B, 1), samples independently (no batch normalisation).
        x: samples (B, …).
        transform: h, as in :func:`kexue_lib.generative.gan_flow.transform` (default "linear").
        create_graph: keep the graph, to differentiate the velocity (default False: detached).

    Returns:
        The velocity, of the shape of x. No samples give none; parameters of D get no gradient.

    Raises:
        TypeError: integers.
        ValueError: another transform, an output of another shape.

    Cost: one forward and one backward pass of D with respect to its input.
    Source: Yi, Zhu & Liu, arXiv 2302.01075.

    >>> flow_velocity(lambda x: -(x**2).sum(-1) / 2, torch.tensor([[1.0, -2.0]]))
    tensor([[-1.,  2.]])
    """
    check_one_of("transform", transform, tuple(TRANSFORMS))
    h, _ = TRANSFORMS[transform]
    check_dtype("x", x, "floating")
    if x.ndim == 0:
        raise ValueError("x: got a tensor without dimensions, expected a batch (B, …)")
    if x.shape[0] == 0:
        return torch.zeros_like(x)
    with torch.enable_grad():
        point = x if create_graph and x.requires_grad else x.detach().requires_grad_()
        logits = potential(point)
        if logits.shape not in (x.shape[:1], (x.shape[0], 1)):
            shown = tuple(logits.shape)
            raise ValueError(f"potential: got output of shape {shown}, expected ({x.shape[0]},) or ({x.shape[0]}, 1)")
        (velocity,) = torch.autograd.grad(h(logits).sum(), point, create_graph=create_graph)
    return velocity


def particle_flow(
    x: Float[Tensor, "n *shape"],
    velocity: Callable[[Tensor, int], Tensor],
    step_size: float,
    steps: int,
    *,
    method: Literal["euler", "heun"] = "euler",
    record_every: int = 0,
) -> tuple[Float[Tensor, "n *shape"], Float[Tensor, "records n *shape"] | None]:
    r"""Move particles by :math:`\dot x=v(x)`, where v may depend on the number of the step.

    Args:
        x: particles (n, …).
        velocity: maps (x, step) to the velocity, of the shape of x; step counts from 0.
        step_size: ε > 0, the time that a step stands for.
        steps: number of steps, at least 0.
        method: "euler" (default) or "heun", which evaluates the velocity twice in a step.
        record_every: k > 0 keeps the start and every k-th state; 0 (default) nothing.

    Returns:
        The last state, detached, and the kept ones (1 + steps // k, n, …), or None.

    Raises:
        TypeError: integers.
        ValueError: step_size ≤ 0, steps or record_every < 0, another method.

    Cost: 1 or 2 velocities a step; no wait for the device.

    >>> x, path = particle_flow(torch.ones(1, 1), lambda x, step: -x, 0.5, 2, record_every=1)
    >>> path.flatten()
    tensor([1.0000, 0.5000, 0.2500])
    """
    check_dtype("x", x, "floating")
    check_number("step_size", step_size, above=0, below=math.inf)
    check_integer("steps", steps, 0)
    check_integer("record_every", record_every, 0)
    check_one_of("method", method, ("euler", "heun"))
    x, kept = x.detach(), [x.detach()]
    with torch.no_grad():
        for step in range(steps):
            x = ode_step(lambda x, _, step=step: velocity(x, step), x, 0.0, step_size, method).detach()
            if record_every and (step + 1) % record_every == 0:
                kept.append(x)
    return x, torch.stack(kept) if record_every else None


def gaussian_kl_flow(
    mean0: Float[Tensor, " d"],
    cov0: Float[Tensor, "d d"],
    mean: Float[Tensor, " d"],
    cov: Float[Tensor, "d d"],
    t: float | Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Mean and covariance of a Gaussian that follows :math:`\dot x=\nabla\log(p/q_t)` towards a Gaussian p.

    With :math:`P=\Sigma^{-1}`: :math:`m_t=m+e^{-Pt}(m_0-m)`,
    :math:`\Sigma_t=\Sigma+e^{-Pt}(\Sigma_0-\Sigma)e^{-Pt}`; the covariances need not commute.

    Args:
        mean0: m₀ (d,) at t = 0.
        cov0: Σ₀ (d, d), symmetric.
        mean: m (d,) of the target.
        cov: Σ (d, d) of the target, symmetric positive definite.
        t: a time, or times (T,).

    Returns:
        Mean (d,) and covariance (d, d), or (T, d) and (T, d, d).

    Raises:
        TypeError: integers.
        ValueError: shapes do not fit, cov is not positive definite.

    Cost: one eigendecomposition, then O(d³) for each time.

    >>> one = torch.ones(1)
    >>> gaussian_kl_flow(0 * one, one[None], one, one[None], 1.0)[0]
    tensor([0.6321])
    """
    times = torch.as_tensor(t, dtype=mean0.dtype, device=mean0.device)
    means, covariances = gaussian_flow(mean0, cov0, mean, cov, times.reshape(-1))
    return (means, covariances) if times.ndim else (means[0], covariances[0])


def gaussian_kl(
    mean0: Float[Tensor, "*batch d"],
    cov0: Float[Tensor, "*batch d d"],
    mean1: Float[Tensor, "*batch d"],
    cov1: Float[Tensor, "*batch d d"],
) -> Float[Tensor, "*batch"]:
    r"""Divergence :math:`KL(N(m_0,\Sigma_0)\,\|\,N(m_1,\Sigma_1))` in nats.

    :math:`\frac12\big[\mathrm{tr}\,\Sigma_1^{-1}\Sigma_0+(m_1-m_0)^\top\Sigma_1^{-1}(m_1-m_0)-d
    +\log\frac{\det\Sigma_1}{\det\Sigma_0}\big]`.

    Args:
        mean0: (…, d).
        cov0: (…, d, d), symmetric positive definite.
        mean1: (…, d).
        cov1: (…, d, d), symmetric positive definite.

    Returns:
        The divergence, of the batch's shape.

    Raises:
        TypeError: integers.
        ValueError: shapes do not fit, a covariance is not positive definite.

    Cost: O(d³).

    >>> one = torch.ones(1)
    >>> gaussian_kl(0 * one, one[None], 2 * one, one[None])
    tensor(2.)
    """
    for name, value in (("mean0", mean0), ("cov0", cov0), ("mean1", mean1), ("cov1", cov1)):
        check_dtype(name, value, "floating")
    check_shape("mean0", mean0, ("...", "d"))
    d = mean0.shape[-1]
    for name, value, shape in (("cov0", cov0, (d, d)), ("mean1", mean1, (d,)), ("cov1", cov1, (d, d))):
        if tuple(value.shape[-len(shape) :]) != shape:
            raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected (…, {', '.join(map(str, shape))})")
    root0, root1 = _root("cov0", cov0), _root("cov1", cov1)
    spread = torch.linalg.solve_triangular(root1, root0, upper=False).square().sum((-2, -1))
    shift = torch.linalg.solve_triangular(root1, (mean1 - mean0)[..., None], upper=False).square().sum((-2, -1))
    logs = [root.diagonal(dim1=-2, dim2=-1).log().sum(-1) for root in (root0, root1)]
    return (spread + shift - d) / 2 + logs[1] - logs[0]


def _root(name: str, covariance: Tensor) -> Tensor:
    root, failed = torch.linalg.cholesky_ex(covariance)
    if covariance.device.type == "cpu" and not is_traced() and bool((failed != 0).any()):
        raise ValueError(f"{name}: got a matrix that is not positive definite, expected one that is")
    return root


def flow_target(
    generator_output: Float[Tensor, "*shape"],
    discriminator: Callable[[Tensor], Tensor],
    step_size: float,
    transform: Word = "linear",
) -> Float[Tensor, "*shape"]:
    r"""Where one step of the flow takes generated samples: :math:`x+\varepsilon\nabla h(D(x))`, detached.

    Args:
        generator_output: x (B, …).
        discriminator: D, maps (B, …) to (B,) or (B, 1).
        step_size: ε > 0.
        transform: h, as in :func:`kexue_lib.generative.gan_flow.transform` (default "linear").

    Returns:
        Targets for :func:`flow_regression_loss`, of the shape of x.

    Raises:
        TypeError: integers.
        ValueError: step_size ≤ 0, another transform, an output of another shape.

    Cost: one forward and one backward pass of D.

    >>> flow_target(torch.tensor([[1.0]]), lambda x: 2 * x, 0.1)
    tensor([[1.2000]])
    """
    check_number("step_size", step_size, above=0, below=math.inf)
    return generator_output.detach() + step_size * flow_velocity(discriminator, generator_output, transform)


def flow_regression_loss(
    generator_output: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    r"""Mean over the batch of :math:`\|g_\theta(z)-x^*\|^2`.

    At the parameters that made the targets :math:`x^*` its gradient is 2ε times that of :func:`generator_loss`.

    Args:
        generator_output: (B, …).
        target: of the same shape, from :func:`flow_target`.

    Returns:
        A scalar.

    Raises:
        TypeError: integers.
        ValueError: different shapes.

    Cost: elementwise.

    >>> flow_regression_loss(torch.zeros(2, 3), torch.ones(2, 3))
    tensor(3.)
    """
    check_dtype("generator_output", generator_output, "floating")
    check_shape("target", target, tuple(generator_output.shape), "as generator_output has")
    return (generator_output - target).flatten(1).square().sum(1).mean()
