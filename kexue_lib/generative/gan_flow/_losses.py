"""What is done to the logit D ≈ log(p/q): the transforms h, the losses of both players, the f-divergences behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_number, check_one_of

Function = Callable[[Tensor], Tensor]

TRANSFORMS: dict[str, tuple[Function, Function]] = {
    "linear": (lambda logit: logit, torch.ones_like),
    "exp": (torch.exp, torch.exp),
    "saturating": (F.softplus, torch.sigmoid),
    "non_saturating": (lambda logit: -F.softplus(-logit), lambda logit: torch.sigmoid(-logit)),
}
OUTPUTS: dict[str, Function] = {
    "kl": lambda ratio: 1 + ratio.log(),
    "reverse_kl": lambda ratio: -1 / ratio,
    "js": lambda ratio: (2 * ratio / (ratio + 1)).log(),
    "pearson": lambda ratio: 2 * (ratio - 1),
    "neyman": lambda ratio: 1 - ratio**-2,
    "hellinger": lambda ratio: 1 - ratio**-0.5,
}


def transform(name: Literal["linear", "exp", "saturating", "non_saturating"]) -> tuple[Function, Function]:
    r"""Return an increasing h of the logit and its derivative h′, the factor on the velocity :math:`\nabla D`.

    linear: h = D, h′ = 1; exp: :math:`e^D`, :math:`e^D`; saturating: softplus(D), σ(D), from min E log(1 − σ(D));
    non_saturating: −softplus(−D), σ(−D), from min −E log σ(D).

    Args:
        name: one of the four words.

    Returns:
        (h, h′), functions of a tensor of any shape; all but exp stay finite for every finite logit.

    Raises:
        ValueError: another word.

    Cost: elementwise.
    Source: Yi, Zhu & Liu, arXiv 2302.01075.

    >>> h, slope = transform("non_saturating")
    >>> h(torch.tensor([0.0, -1000.0])), slope(torch.tensor([0.0, -1000.0]))
    (tensor([-6.9315e-01, -1.0000e+03]), tensor([0.5000, 1.0000]))
    """
    check_one_of("name", name, tuple(TRANSFORMS))
    return TRANSFORMS[name]


def generator_loss(
    fake_logits: Float[Tensor, "*batch"],
    kind: Literal["linear", "exp", "saturating", "non_saturating"] = "non_saturating",
) -> Float[Tensor, ""]:
    r"""Loss :math:`-\overline{h(D)}` that a generator minimises.

    Args:
        fake_logits: D at generated samples, any shape.
        kind: h, as in :func:`transform` (default "non_saturating").

    Returns:
        A scalar.

    Raises:
        TypeError: integers.
        ValueError: another kind.

    Cost: elementwise.
    Source: Goodfellow et al., arXiv 1406.2661.

    >>> generator_loss(torch.zeros(3))
    tensor(0.6931)
    """
    check_dtype("fake_logits", fake_logits, "floating")
    check_one_of("kind", kind, tuple(TRANSFORMS))
    return -transform(kind)[0](fake_logits).mean()


def discriminator_loss(
    real_logits: Float[Tensor, "*real"],
    fake_logits: Float[Tensor, "*fake"],
    kind: Literal["logistic", "hinge", "least_squares"] = "logistic",
) -> Float[Tensor, ""]:
    r"""Loss that a discriminator minimises: the sum of a mean over data and a mean over generated samples.

    logistic: softplus(−D), softplus(D), least at :math:`D=\log(p/q)`; hinge: (1 − D)₊, (1 + D)₊, least at the sign of
    p − q; least_squares: (D − 1)², D², least at p/(p + q).

    Args:
        real_logits: D at data, any shape.
        fake_logits: D at generated samples, any shape.
        kind: the loss (default "logistic").

    Returns:
        A scalar.

    Raises:
        TypeError: integers.
        ValueError: another kind.

    Cost: elementwise.
    Source: Goodfellow et al., arXiv 1406.2661; Lim & Ye, arXiv 1705.02894; Mao et al., arXiv 1611.04076.

    >>> discriminator_loss(torch.zeros(2), torch.zeros(5))
    tensor(1.3863)
    """
    check_dtype("real_logits", real_logits, "floating")
    check_dtype("fake_logits", fake_logits, "floating")
    check_one_of("kind", kind, ("logistic", "hinge", "least_squares"))
    if kind == "logistic":
        real, fake = F.softplus(-real_logits), F.softplus(fake_logits)
    elif kind == "hinge":
        real, fake = F.relu(1 - real_logits), F.relu(1 + fake_logits)
    else:
        real, fake = (real_logits - 1).square(), fake_logits.square()
    return real.mean() + fake.mean()


def f_from_h(h_prime: Function, u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    r"""Second derivative :math:`f''(u)=h'(-\log u)/u` of the divergence that the flow of h descends.

    The flow :math:`\dot x=\nabla h(\log(p/q))` is the Wasserstein gradient flow of :math:`\int p\,f(q/p)`; an
    increasing h makes f convex.

    Args:
        h_prime: derivative of h, elementwise.
        u: values of q/p, above 0.

    Returns:
        f″ at each u.

    Raises:
        TypeError: integers.
        ValueError: u not above 0.

    Cost: elementwise.

    >>> f_from_h(transform("linear")[1], torch.tensor([0.5, 2.0]))  # of u log u
    tensor([2.0000, 0.5000])
    """
    check_dtype("u", u, "floating")
    check_number("u", u, above=0)
    return h_prime(-u.log()) / u


def f_divergence_output(
    kind: Literal["kl", "reverse_kl", "js", "pearson", "neyman", "hellinger"], ratio: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    r"""Optimal output :math:`T=f'(p/q)` of the discriminator of an f-GAN, which maximises :math:`E_pT-E_qf^*(T)`.

    For :math:`D_f=\int q\,f(p/q)` with f(r) = r log r (kl), −log r (reverse_kl), r log r − (r + 1) log((r + 1)/2)
    (js), (r − 1)² (pearson), (r − 1)²/r (neyman), (√r − 1)² (hellinger). Each output increases with the ratio.

    Args:
        kind: the divergence.
        ratio: p/q, above 0.

    Returns:
        T, of the same shape.

    Raises:
        TypeError: integers.
        ValueError: another kind, a ratio not above 0.

    Cost: elementwise.
    Source: Nowozin, Cseke & Tomioka, arXiv 1606.00709, table 6.

    >>> f_divergence_output("pearson", torch.tensor([0.5, 2.0]))
    tensor([-1.,  2.])
    """
    check_one_of("kind", kind, tuple(OUTPUTS))
    check_dtype("ratio", ratio, "floating")
    check_number("ratio", ratio, above=0)
    return OUTPUTS[kind](ratio)
