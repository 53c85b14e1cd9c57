"""How a learning rate and a decay of AdamW, or the scale of the weights, become Lion's, and what a state weighs."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from kexue_lib._arguments import check_number


def adam_update_rms(beta1: float) -> float:
    r"""Return the root mean square of Adam's update where gradients are noise of zero mean.

    .. math:: \sqrt{\sum_{j\ge0}\big((1-\beta_1)\beta_1^j\big)^2}=\sqrt{\frac{1-\beta_1}{1+\beta_1}}

    Args:
        beta1: decay of the momentum, in [0, 1); the second moment is taken as known (β₂ → 1), ε as zero.

    Returns:
        The root mean square; Lion's is 1, so its reciprocal is the ratio of learning rates at equal motion.

    Raises:
        TypeError: ``beta1`` is no number.
        ValueError: ``beta1`` outside [0, 1).

    >>> round(1 / adam_update_rms(0.9), 2), round(1 / adam_update_rms(0.95), 2)
    (4.36, 6.24)
    """
    check_number("beta1", beta1, least=0, below=1)
    return math.sqrt((1 - beta1) / (1 + beta1))


def adamw_to_lion(lr: float, weight_decay: float, *, factor: float = 10.0) -> tuple[float, float]:
    r"""Return Lion's learning rate and decay for those of AdamW.

    .. math:: \eta=\eta_\text{AdamW}/f,\qquad\lambda=f\,\lambda_\text{AdamW}

    Args:
        lr: AdamW's learning rate, at least 0.
        weight_decay: AdamW's decoupled decay, at least 0.
        factor: f, above 0; the paper advises 3 to 10, :func:`adam_update_rms` gives 4.4 for β₁ = 0.9.

    Returns:
        ``(lr, weight_decay)`` of Lion; the product, the decay of one step, stays the same.

    Raises:
        TypeError: an argument is no number.
        ValueError: ``lr`` or ``weight_decay`` negative, ``factor`` not positive, or one not finite.

    >>> adamw_to_lion(1e-3, 0.1)
    (0.0001, 1.0)
    """
    check_number("lr", lr, least=0, below=math.inf)
    check_number("weight_decay", weight_decay, least=0, below=math.inf)
    check_number("factor", factor, above=0, below=math.inf)
    return lr / factor, weight_decay * factor


def scale_to_lion(alpha0: float, sigma: float) -> tuple[float, float]:
    r"""Return Lion's initial learning rate and constant decay for weights of a known scale.

    .. math:: \eta_0=\alpha_0\sigma,\qquad\lambda=\frac{\alpha_0}{2\sigma}

    Args:
        alpha0: α₀, relative size of the first step, above 0; the article takes 1e-3 as a rule.
        sigma: σ, root mean square of the weights, above 0.

    Returns:
        ``(lr, weight_decay)``; the rate is then divided by κt + 1.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument that is not positive and finite.

    >>> [float(f"{value:.2g}") for value in scale_to_lion(1.11e-3, 768**-0.5)]
    [4e-05, 0.015]
    """
    check_number("alpha0", alpha0, above=0, below=math.inf)
    check_number("sigma", sigma, above=0, below=math.inf)
    return alpha0 * sigma, alpha0 / (2 * sigma)


def optimizer_state_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of an optimizer's state: all its tensors of more than one element, on this process.

    Args:
        optimizer: after at least one step, as states are made there.

    Returns:
        Bytes; step counters and state of scalar parameters are left out.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(10))
    >>> weight.grad = torch.ones(10)
    >>> momentum, adamw = torch.optim.SGD([weight], momentum=0.9), torch.optim.AdamW([weight])
    >>> momentum.step(), adamw.step(), optimizer_state_bytes(momentum), optimizer_state_bytes(adamw)
    (None, None, 40, 80)
    """
    tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    large: list[Any] = [t for t in tensors if t.numel() > 1]
    local = [t.to_local() if hasattr(t, "to_local") else t for t in large]
    return sum(t.numel() * t.element_size() for t in local)
