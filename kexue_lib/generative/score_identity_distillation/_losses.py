r"""Losses of equal value and different gradients, from the teacher's, the student's and the true noise.

Throughout :math:`x_t=ax_0+b\varepsilon` with :math:`x_0=g_\theta(z)` from the generator; :math:`\varepsilon_\varphi` is
the teacher's prediction of the noise, :math:`\varepsilon_\psi` that of the student, a denoiser of the generator's own
samples, and :math:`\delta=\varepsilon_\varphi-\varepsilon_\psi`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number
from kexue_lib._tracing import is_traced


class SiDTerms(NamedTuple):
    r"""Four estimates of :math:`E\|\delta\|^2` for each sample, equal in expectation if the student is at its optimum.

    l1 :math:`=\|\delta\|^2`; l2 :math:`=\langle\delta,\varepsilon_\varphi-\varepsilon\rangle`;
    l3 :math:`=\|\varepsilon_\varphi\|^2-2\langle\varepsilon_\varphi,\varepsilon\rangle+\langle\varepsilon_\psi,
    \varepsilon\rangle`; lm :math:`=\|\varepsilon_\varphi-\varepsilon\|^2+\|\varepsilon_\psi\|^2-d`.
    """

    l1: Tensor
    l2: Tensor
    l3: Tensor
    lm: Tensor


def sid_terms(
    eps_teacher: Float[Tensor, "B *shape"], eps_student: Float[Tensor, "B *shape"], eps: Float[Tensor, "B *shape"]
) -> SiDTerms:
    """Return the four terms of :class:`SiDTerms`, sums over all but the batch.

    Args:
        eps_teacher: predicted noise of the teacher (B, …).
        eps_student: predicted noise of the student (B, …).
        eps: the noise that was added (B, …).

    Returns:
        Four tensors (B,).

    Raises:
        TypeError: integers.
        ValueError: different shapes.

    Cost: elementwise.
    Source: Su Jianlin, https://kexue.fm/archives/10085.

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> sid_terms(3 * one, one, 2 * one)
    SiDTerms(l1=tensor([8.]), l2=tensor([4.]), l3=tensor([-2.]), lm=tensor([2.]))
    """
    _check_alike(eps_teacher=eps_teacher, eps_student=eps_student, eps=eps)
    gap, miss = eps_teacher - eps_student, eps_teacher - eps
    l3 = _sum(eps_teacher * (eps_teacher - 2 * eps) + eps_student * eps)
    lm = _sum(miss * miss + eps_student * eps_student) - math.prod(eps.shape[1:])
    return SiDTerms(_sum(gap * gap), _sum(gap * miss), l3, lm)


def sid_loss(
    eps_teacher: Float[Tensor, "B *shape"],
    eps_student: Float[Tensor, "B *shape"],
    eps: Float[Tensor, "B *shape"],
    *,
    lam: float = 1.0,
) -> Float[Tensor, " B"]:
    r"""Loss :math:`\langle\delta,(\varepsilon_\varphi-\varepsilon)-\lambda\delta\rangle` of SiD.

    Its gradient by the generator, the student's weights held fixed, points the right way on Gaussians for every
    student if ½ ≤ λ ≤ 1; λ = ½ is half the gradient of :math:`E\|\delta\|^2` with the student's dependence included.

    Args:
        eps_teacher: predicted noise of the teacher (B, …).
        eps_student: predicted noise of the student (B, …).
        eps: the noise that was added (B, …).
        lam: λ, finite (default 1; the paper's images use 1.2).

    Returns:
        A loss for each sample (B,), sums over all but the batch. It is not bounded below and may be negative.

    Raises:
        TypeError: integers.
        ValueError: different shapes, λ not finite.

    Cost: elementwise. Compute it in float32: at small noise :math:`\delta` is a difference of close numbers.
    Source: Zhou et al., arXiv 2404.04057, equation 23.

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> sid_loss(3 * one, one, 2 * one, lam=0.5)
    tensor([0.])
    """
    _check_alike(eps_teacher=eps_teacher, eps_student=eps_student, eps=eps)
    check_number("lam", lam, above=-math.inf, below=math.inf)
    gap = eps_teacher - eps_student
    return _sum(gap * (eps_teacher - eps - lam * gap))


def fgm_loss(
    eps_teacher: Float[Tensor, "B *shape"], eps_student: Float[Tensor, "B *shape"], eps: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    r"""Loss :math:`2\langle\delta,\varepsilon_\varphi-\varepsilon\rangle-\|\delta\|^2` of flow generator matching.

    With the student at its optimum its gradient is that of :math:`E\|\delta\|^2`, the student's dependence on the
    generator included; twice :func:`sid_loss` at λ = ½.

    Args:
        eps_teacher: predicted noise of the teacher (B, …).
        eps_student: predicted noise of the student (B, …).
        eps: the noise that was added (B, …).

    Returns:
        A loss for each sample (B,).

    Raises:
        TypeError: integers.
        ValueError: different shapes.

    Cost: elementwise.
    Source: Huang et al., arXiv 2410.19310.

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> fgm_loss(3 * one, one, 2 * one)
    tensor([0.])
    """
    return 2 * sid_loss(eps_teacher, eps_student, eps, lam=0.5)


def sid_loss_x0(
    x0_teacher: Float[Tensor, "B *shape"],
    x0_student: Float[Tensor, "B *shape"],
    x0: Float[Tensor, "B *shape"],
    *,
    lam: float = 1.0,
) -> Float[Tensor, " B"]:
    r"""The same loss from denoised samples: :math:`\langle\mu_\varphi-\mu_\psi,(\mu_\varphi-x_0)-\lambda(\mu_\varphi
    -\mu_\psi)\rangle`, which is :math:`(b/a)^2` times :func:`sid_loss`.

    Args:
        x0_teacher: the teacher's denoised sample (B, …).
        x0_student: the student's denoised sample (B, …).
        x0: the generator's sample (B, …).
        lam: λ, finite (default 1).

    Returns:
        A loss for each sample (B,).

    Raises:
        TypeError: integers.
        ValueError: different shapes, λ not finite.

    Cost: elementwise.
    Source: Zhou et al., arXiv 2404.04057.

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> sid_loss_x0(3 * one, one, 2 * one, lam=1.0)
    tensor([-4.])
    """
    _check_alike(x0_teacher=x0_teacher, x0_student=x0_student, x0=x0)
    return sid_loss(x0_teacher, x0_student, x0, lam=lam)


def sid_weight(x0: Float[Tensor, "B *shape"], x0_teacher: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *ones"]:
    r"""Weight :math:`1/\overline{|x_0-\mu_\varphi|}` of a sample, detached, which evens out the noise levels.

    It is a function of x₀, not of x_t, so the identity behind the losses does not hold under it; with many coordinates
    the mean hardly varies and little is lost.

    Args:
        x0: the generator's sample (B, …).
        x0_teacher: the teacher's denoised sample (B, …).

    Returns:
        Weights (B, 1, …); the mean is taken as at least 1e-5.

    Raises:
        TypeError: integers.
        ValueError: different shapes.

    Cost: elementwise.
    Source: Zhou et al., arXiv 2404.04057; the code's normaliser.

    >>> import torch
    >>> sid_weight(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
    tensor([[0.5000]])
    """
    _check_alike(x0=x0, x0_teacher=x0_teacher)
    distance = (x0 - x0_teacher).detach().abs().flatten(1).mean(1).clamp(min=1e-5)
    return 1 / distance.reshape(-1, *(1,) * (x0.ndim - 1))


def eps_to_x0(
    eps: Float[Tensor, "B *shape"], x_t: Float[Tensor, "B *shape"], a: float | Tensor, b: float | Tensor
) -> Float[Tensor, "B *shape"]:
    """Denoised sample (x_t − bε)/a.

    Args:
        eps: noise (B, …).
        x_t: noised sample (B, …).
        a: factor of the data, above 0, a number or (B,).
        b: factor of the noise, above 0, a number or (B,).

    Returns:
        x₀ (B, …).

    Raises:
        TypeError: integers.
        ValueError: different shapes, a or b not above 0.

    >>> import torch
    >>> eps_to_x0(torch.ones(1, 1), torch.full((1, 1), 3.0), 0.5, 2.0)
    tensor([[2.]])
    """
    _check_alike(eps=eps, x_t=x_t)
    return (x_t - _factor("b", b, x_t) * eps) / _factor("a", a, x_t)


def x0_to_eps(
    x0: Float[Tensor, "B *shape"], x_t: Float[Tensor, "B *shape"], a: float | Tensor, b: float | Tensor
) -> Float[Tensor, "B *shape"]:
    """Noise (x_t − a x₀)/b; arguments and errors as of :func:`eps_to_x0`.

    Args:
        x0: denoised sample (B, …).
        x_t: noised sample (B, …).
        a: factor of the data, above 0, a number or (B,).
        b: factor of the noise, above 0, a number or (B,).

    Returns:
        ε (B, …).

    >>> import torch
    >>> x0_to_eps(torch.full((1, 1), 2.0), torch.full((1, 1), 3.0), 0.5, 2.0)
    tensor([[1.]])
    """
    _check_alike(x0=x0, x_t=x_t)
    return (x_t - _factor("a", a, x_t) * x0) / _factor("b", b, x_t)


def eps_to_score(eps: Float[Tensor, "B *shape"], b: float | Tensor) -> Float[Tensor, "B *shape"]:
    """Score −ε/b of the noised law.

    Args:
        eps: predicted noise (B, …).
        b: factor of the noise, above 0, a number or (B,).

    Returns:
        The score (B, …).

    >>> import torch
    >>> eps_to_score(torch.ones(1, 1), 2.0)
    tensor([[-0.5000]])
    """
    check_dtype("eps", eps, "floating")
    return -eps / _factor("b", b, eps)


def score_to_eps(score: Float[Tensor, "B *shape"], b: float | Tensor) -> Float[Tensor, "B *shape"]:
    """Predicted noise −b s.

    Args:
        score: score of the noised law (B, …).
        b: factor of the noise, above 0, a number or (B,).

    Returns:
        ε (B, …).

    >>> import torch
    >>> score_to_eps(torch.full((1, 1), -0.5), 2.0)
    tensor([[1.]])
    """
    check_dtype("score", score, "floating")
    return -score * _factor("b", b, score)


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1) if x.ndim > 1 else x


def _factor(name: str, value: float | Tensor, like: Tensor) -> float | Tensor:
    """A number, or one for each sample, over the other dimensions."""
    check_number(name, value, above=0, below=math.inf)
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.ndim == 1 and value.shape[0] == like.shape[0]:
        return value.reshape(-1, *(1,) * (like.ndim - 1))
    raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected a number or ({like.shape[0]},)")


def _check_alike(**tensors: Tensor) -> None:
    for name, value in tensors.items():
        check_dtype(name, value, "floating")
        if value.ndim == 0:
            raise ValueError(f"{name}: got a tensor without dimensions, expected a batch (B, …)")
    if len({value.shape for value in tensors.values()}) > 1 and not is_traced():
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors.values())
        raise ValueError(f"{', '.join(tensors)}: got shapes {shapes}, expected equal ones")
