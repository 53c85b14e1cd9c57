"""The quantum model of loss: frequencies, exact and asymptotic loss, and what is learned from a resource.

Source: Su Jianlin, https://kexue.fm/archives/9607; Michaud et al., arXiv 2303.13506.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of

_BLOCK = 2**20  # terms of a sum that are held at once
_KINDS = ("parameters", "data", "steps")

Number = int | float | Tensor


def zipf_frequencies(n: int, gamma: float | int, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n"]:
    """Return k^{−γ−1}, k = 1 … n, divided by their sum.

    Args:
        n: how many, at least 1.
        gamma: γ > 0.
        dtype: of the result; computed in float64.

    Raises:
        TypeError: n is no integer or gamma no number.
        ValueError: n < 1 or γ ≤ 0.

    >>> zipf_frequencies(3, 1.0)
    tensor([0.7347, 0.1837, 0.0816], dtype=torch.float64)
    """
    check_integer("n", n, 1)
    check_number("gamma", gamma, above=0, below=math.inf)
    p = torch.arange(1, n + 1, dtype=torch.float64) ** (-float(gamma) - 1)
    return (p / p.sum()).to(dtype)


def zipf_tail(n: Number | Float[Tensor, "..."], gamma: Number) -> Float[Tensor, "..."]:
    """Return Σ_{k>n} p_k of the infinite law p_k = k^{−γ−1}/ζ(γ + 1), which is ζ(γ + 1, n + 1)/ζ(γ + 1).

    Args:
        n: number or tensor of any shape, ≥ 0; a real n interpolates.
        gamma: γ > 0, a number or a tensor that broadcasts with n.

    Returns:
        float64. No gradient: PyTorch has none of the Hurwitz zeta function.

    Raises:
        TypeError, ValueError: n < 0 or γ ≤ 0, or no number.

    Cost: one Hurwitz zeta an entry; relative error below 1e-13 for n ≤ 1e6.

    >>> zipf_tail(torch.tensor([0.0, 1.0, 10.0]), 1.0)
    tensor([1.0000, 0.3921, 0.0579], dtype=torch.float64)
    """
    check_number("n", n, least=0, below=math.inf)
    check_number("gamma", gamma, above=0, below=math.inf)
    n, power = wide(n), wide(gamma) + 1
    return torch.special.zeta(power, n + 1) / torch.special.zeta(power, torch.ones_like(power))


def quantized_loss(n: Number, gamma: Number, a: Number = 0.0, b: Number = 1.0) -> Float[Tensor, "..."]:
    """Return the loss with the n most frequent quanta learned: a + (b − a) Σ_{k>n} p_k.

    Args:
        n: number or tensor, ≥ 0.
        gamma: γ > 0.
        a: loss on samples whose quantum is learned.
        b: loss on the others.

    Returns:
        float64, differentiable in a and b.

    Raises:
        TypeError, ValueError: as :func:`zipf_tail`.

    Source: article 9607, its L_n.

    >>> quantized_loss(10, 1.0, a=1.0, b=3.0)
    tensor(1.1157, dtype=torch.float64)
    """
    a, b = wide(a), wide(b)
    return a + (b - a) * zipf_tail(n, gamma)


def quantized_loss_asymptotic(
    n: Number, gamma: Number, a: Number = 0.0, b: Number = 1.0, *, midpoint: bool = False
) -> Float[Tensor, "..."]:
    """Return a + (b − a) n^{−γ}/(γ ζ(γ + 1)), the integral in place of the sum.

    It lies above the sum by a relative γ/(2n); with `midpoint`, (n + ½)^{−γ} in its place, the error is O(n⁻²).

    Args:
        n: number or tensor, > 0.
        gamma: γ > 0.
        a: loss on samples whose quantum is learned.
        b: loss on the others.
        midpoint: begin the integral at n + ½.

    Returns:
        float64, differentiable in n, a and b.

    Raises:
        TypeError, ValueError: n ≤ 0, γ ≤ 0 or no number.

    >>> quantized_loss_asymptotic(10, 1.0), quantized_loss_asymptotic(10, 1.0, midpoint=True)
    (tensor(0.0608, dtype=torch.float64), tensor(0.0579, dtype=torch.float64))
    """
    check_number("n", n, above=0, below=math.inf)
    check_number("gamma", gamma, above=0, below=math.inf)
    n, gamma, a, b = map(wide, (n, gamma, a, b))
    zeta = torch.special.zeta(gamma.detach() + 1, torch.ones_like(gamma))
    return a + (b - a) * (n + (0.5 if midpoint else 0.0)) ** -gamma / (gamma * zeta)


def predicted_exponents(gamma: float | int) -> dict[str, float]:
    """Return the exponents of the loss in parameters (γ), data and steps (γ/(γ + 1)) and compute (γ/(γ + 2)).

    Args:
        gamma: γ > 0.

    Raises:
        TypeError, ValueError: γ is no number above 0.

    >>> predicted_exponents(1.0)
    {'parameters': 1.0, 'data': 0.5, 'steps': 0.5, 'compute': 0.3333333333333333}
    """
    check_number("gamma", gamma, above=0, below=math.inf)
    one = gamma / (gamma + 1)
    return {"parameters": float(gamma), "data": one, "steps": one, "compute": gamma / (gamma + 2)}


def learned_quanta(
    resource: Number,
    gamma: Number,
    *,
    kind: Literal["parameters", "data", "steps"],
    capacity: float | int = 1.0,
    tau: float | int = 1.0,
    batch_size: float | int = 1.0,
) -> Float[Tensor, "..."]:
    """Return the real number n of quanta that a resource buys in the infinite law.

    parameters N: n = N/capacity. data D: the n with D p_n = τ, n = (D/(τ ζ(γ + 1)))^{1/(γ+1)}. steps S: the same with
    D = S batch_size.

    Args:
        resource: N, D or S > 0, a number or a tensor.
        gamma: γ > 0.
        kind: what the resource is.
        capacity: parameters of one quantum.
        tau: samples of its own that a quantum needs.
        batch_size: samples of a step.

    Returns:
        float64, differentiable in the resource.

    Raises:
        TypeError, ValueError: a number that is not above 0, an unknown kind.

    >>> learned_quanta(1e4, 1.0, kind="data", tau=10.0)
    tensor(24.6562, dtype=torch.float64)
    """
    check_one_of("kind", kind, _KINDS)
    numbers = {"resource": resource, "gamma": gamma, "capacity": capacity, "tau": tau, "batch_size": batch_size}
    for name, value in numbers.items():
        check_number(name, value, above=0, below=math.inf)
    resource, gamma = wide(resource), wide(gamma)
    if kind == "parameters":
        return resource / capacity
    samples = resource * batch_size if kind == "steps" else resource
    zeta = torch.special.zeta(gamma.detach() + 1, torch.ones_like(gamma))
    return (samples / (tau * zeta)) ** (1 / (gamma + 1))


def expected_loss(
    D: Number, frequencies: Float[Tensor, "K"], tau: Number, a: Number = 0.0, b: Number = 1.0
) -> Float[Tensor, "..."]:
    """Return the mean loss when quantum k has been met Poisson(D p_k) times and is learned from τ meetings on.

    a Σ p_k + (b − a) Σ p_k Q(τ, D p_k), where Q is the regularised upper incomplete gamma function, P(Poisson(λ) < τ).

    Args:
        D: number of samples, ≥ 0, a number or a tensor of any shape.
        frequencies: ``(K,)``, ≥ 0; any list, also one that does not sum to 1.
        tau: τ > 0, a number; the Poisson reading needs an integer.
        a: loss on samples whose quantum is learned.
        b: loss on the others.

    Returns:
        float64, shape of D; differentiable in D, frequencies, a and b.

    Raises:
        TypeError: frequencies is not floating, another argument no number.
        ValueError: frequencies is no vector; a number out of range.

    Cost: one incomplete gamma for each pair (D, k), in blocks of 2²⁰ pairs where no gradient is asked for.

    >>> expected_loss(torch.tensor([0.0, 10.0]), torch.tensor([0.5, 0.5]), 1)
    tensor([1.0000, 0.0067], dtype=torch.float64)
    """
    check_dtype("frequencies", frequencies, "floating")
    if frequencies.dim() != 1:
        raise ValueError(f"frequencies: got shape {tuple(frequencies.shape)}, expected (K,)")
    check_number("frequencies", frequencies, least=0, below=math.inf)
    check_number("D", D, least=0, below=math.inf)
    check_number("tau", tau, above=0, below=math.inf)
    D, a, b, p = wide(D).to(frequencies.device), wide(a), wide(b), frequencies.double()
    shape = wide(tau).to(p.device)
    total = torch.zeros_like(D)
    for block in p.split(max(1, _BLOCK // max(1, D.numel()))):
        rate = D[..., None] * block
        total = total + (torch.special.gammaincc(shape.expand_as(rate), rate) * block).sum(-1)
    return a * p.sum() + (b - a) * total


def wide(value: Number) -> Tensor:
    """A number or tensor as a float64 tensor."""
    return value.double() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
