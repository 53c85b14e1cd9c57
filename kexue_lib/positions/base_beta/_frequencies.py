r"""The frequencies of every recipe: those of the trained model, pair i divided by a factor between 1 and k.

Pairs are counted i = 0…N − 1 with N = d/2 and :math:`\theta_i=b^{-i/N}`; digit m of the article is pair i = m − 1.
All functions return ``(dim // 2,)`` float64, decreasing in i, and return the plain frequencies bit for bit where the
factor is 1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number
from kexue_lib.positions.rope import inverse_frequencies

Frequencies = Float[Tensor, " pairs"]


def pi_frequencies(dim: int, factor: float | int, base: float | int = 10000.0) -> Frequencies:
    r"""Return the frequencies of position interpolation, :math:`\theta_i/k`: every digit slows down alike.

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1, how many times longer the context becomes.
        base: b of the trained model.

    Raises:
        ValueError: ``factor`` below 1 or not finite; bad ``dim`` or ``base``.

    Source: Chen et al., arXiv 2306.15595.

    >>> pi_frequencies(4, 8.0, 100.0)
    tensor([0.1250, 0.0125], dtype=torch.float64)
    """
    return inverse_frequencies(dim, base) / _checked_factor(factor)


def ntk_old_frequencies(dim: int, factor: float | int, base: float | int = 10000.0) -> Frequencies:
    r"""Return the frequencies of base bk, :math:`\theta_i/k^{i/N}`: the article's NTK-RoPE-old.

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1.
        base: b of the trained model.

    Raises:
        ValueError: ``factor`` below 1 or not finite; bad ``dim`` or ``base``.

    Source: https://kexue.fm/archives/9675.

    >>> ntk_old_frequencies(4, 4.0, 100.0)
    tensor([1.0000, 0.0500], dtype=torch.float64)
    """
    return inverse_frequencies(dim, base * _checked_factor(factor))


def ntk_aware_frequencies(dim: int, factor: float | int, base: float | int = 10000.0) -> Frequencies:
    r"""Return the frequencies of base :math:`bk^{d/(d-2)}`, :math:`\theta_i/k^{i/(N-1)}`: first kept, last over k.

    Args:
        dim: rotary dimension d, even, at least 4.
        factor: k ≥ 1.
        base: b of the trained model.

    Raises:
        ValueError: ``factor`` below 1 or not finite; bad ``dim`` or ``base``.

    Source: bloc97, "NTK-aware scaled RoPE", 2023.

    >>> ntk_aware_frequencies(4, 4.0, 100.0)
    tensor([1.0000, 0.0250], dtype=torch.float64)
    """
    _check_two_pairs(dim)
    return inverse_frequencies(dim, base * _checked_factor(factor) ** (dim / (dim - 2)))


def ntk_fixed_frequencies(dim: int, factor: float | int, base: float | int = 10000.0) -> Frequencies:
    r"""Return :math:`\theta_i/k^{(i+1)/N}`: old, with the modulus of every digit grown as well.

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1.
        base: b of the trained model.

    Raises:
        ValueError: ``factor`` below 1 or not finite; bad ``dim`` or ``base``.

    Source: https://kexue.fm/archives/9706.

    >>> ntk_fixed_frequencies(4, 4.0, 100.0)
    tensor([0.5000, 0.0250], dtype=torch.float64)
    """
    return ntk_mixed_frequencies(dim, factor, base, exponent=1.0)


def ntk_mixed_frequencies(
    dim: int, factor: float | int, base: float | int = 10000.0, *, exponent: float | int = 0.625
) -> Frequencies:
    r"""Return the frequencies of mixed radices, the low digits stretched more than the high ones.

    .. math:: \theta_i\,e^{-a(i+1)^c},\qquad aN^c=\ln k

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1.
        base: b of the trained model.
        exponent: c in [0, 1]; 0 is position interpolation, 1 is NTK-fixed.

    Raises:
        ValueError: ``factor`` below 1 or not finite; ``exponent`` outside [0, 1]; bad ``dim`` or ``base``.

    Source: https://kexue.fm/archives/9706.

    >>> ntk_mixed_frequencies(4, 4.0, 100.0, exponent=0.5)
    tensor([0.3752, 0.0250], dtype=torch.float64)
    """
    check_number("exponent", exponent, least=0, most=1)
    theta, pairs = inverse_frequencies(dim, base), dim // 2
    place = torch.arange(1, pairs + 1, dtype=torch.float64) / pairs
    return theta * torch.exp(-math.log(_checked_factor(factor)) * place**exponent)


def ntk_by_parts_frequencies(
    dim: int,
    factor: float | int,
    original_length: float | int,
    base: float | int = 10000.0,
    *,
    low: float | int = 1.0,
    high: float | int = 32.0,
) -> Frequencies:
    r"""Return NTK-by-parts: fast digits kept, digits that never finished a turn in training slowed down k times.

    .. math:: \theta_i\Big(\gamma_i+\frac{1-\gamma_i}k\Big),\qquad
              \gamma_i=\operatorname{clip}\Big(\frac{r_i-\text{low}}{\text{high}-\text{low}},0,1\Big),\qquad
              r_i=\frac{T\theta_i}{2\pi}

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1.
        original_length: T, training length in tokens.
        base: b of the trained model.
        low: turns inside T up to which a digit is interpolated.
        high: turns inside T from which on a digit is kept.

    Raises:
        ValueError: ``factor`` below 1 or not finite; ``original_length`` not positive; ``low`` not below ``high``;
            bad ``dim`` or ``base``.

    Source: Peng et al., arXiv 2309.00071, section 3.2.

    >>> ntk_by_parts_frequencies(4, 4.0, 100, 100.0, high=10.0)
    tensor([1.0000, 0.0299], dtype=torch.float64)
    """
    check_number("low", low, below=high)
    theta = inverse_frequencies(dim, base)
    turns = theta * (checked_length(original_length) / (2 * math.pi))
    return _blend(theta, ((turns - low) / (high - low)).clamp(0, 1), factor)


def llama3_frequencies(
    dim: int,
    factor: float | int,
    original_length: float | int,
    base: float | int = 500000.0,
    *,
    low: float | int = 1.0,
    high: float | int = 4.0,
) -> Frequencies:
    """Return Llama 3's frequencies: :func:`ntk_by_parts_frequencies` with other defaults.

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1.
        original_length: T, training length in tokens.
        base: b of the trained model.
        low: ``low_freq_factor``.
        high: ``high_freq_factor``.

    Raises:
        ValueError: as there.

    Source: the ``rope_type="llama3"`` of transformers.

    >>> torch.equal(llama3_frequencies(4, 8.0, 64), ntk_by_parts_frequencies(4, 8.0, 64, 500000.0, high=4.0))
    True
    """
    return ntk_by_parts_frequencies(dim, factor, original_length, base, low=low, high=high)


def yarn_frequencies(
    dim: int,
    factor: float | int,
    original_length: float | int,
    base: float | int = 10000.0,
    *,
    beta_fast: float | int = 32.0,
    beta_slow: float | int = 1.0,
    truncate: bool = True,
) -> Frequencies:
    r"""Return YaRN's frequencies as released: the ramp is linear in the index of the pair, not in its turns.

    .. math:: \gamma_i=1-\operatorname{clip}\Big(\frac{i-i_\text{fast}}{i_\text{slow}-i_\text{fast}},0,1\Big),\qquad
              i_\tau=N\frac{\ln(T/2\pi\tau)}{\ln b}

    Args:
        dim: rotary dimension d, even.
        factor: k ≥ 1.
        original_length: T, training length in tokens.
        base: b of the trained model, above 1.
        beta_fast: turns inside T from which on a digit is kept.
        beta_slow: turns inside T up to which a digit is interpolated.
        truncate: round the two indices outwards.

    Raises:
        ValueError: ``factor`` below 1 or not finite; ``original_length`` not positive; ``beta_slow`` not positive or
            not below ``beta_fast``; ``base`` at most 1; bad ``dim``.

    Source: Peng et al., arXiv 2309.00071, and its code; transformers' ``rope_type="yarn"``.

    >>> yarn_frequencies(4, 4.0, 100, 100.0)
    tensor([1.0000, 0.0625], dtype=torch.float64)
    """
    check_number("beta_slow", beta_slow, above=0, below=beta_fast)
    check_number("base", base, above=1, below=math.inf)
    theta, length = inverse_frequencies(dim, base), checked_length(original_length)
    first, last = (critical_index(dim, length / turns, base) for turns in (beta_fast, beta_slow))
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)  # dim - 1, not dim // 2 - 1: as released
    last = last + 0.001 if first == last else last
    ramp = (torch.arange(dim // 2, dtype=torch.float64) - first) / (last - first)
    return _blend(theta, 1 - ramp.clamp(0, 1), factor)


def yarn_attention_factor(factor: float | int) -> float:
    r"""Return what YaRN multiplies cosine and sine with, :math:`0.1\ln k+1`; logits grow by its square.

    Args:
        factor: k; at most 1 gives 1.

    Source: arXiv 2309.00071, eq. 22; fitted, not derived.

    >>> round(yarn_attention_factor(8.0), 4)
    1.2079
    """
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def dynamic_ntk_frequencies(
    dim: int,
    length: float | int,
    original_length: float | int,
    base: float | int = 10000.0,
    *,
    factor: float | int = 1.0,
) -> Frequencies:
    r"""Return NTK-aware frequencies for a sequence of the current length.

    .. math:: \theta_i\,s^{-i/(N-1)},\qquad s=\max\Big(1,\frac{kL'}T-(k-1)\Big)

    Args:
        dim: rotary dimension d, even, at least 4.
        length: L', tokens of the sequence.
        original_length: T, training length in tokens.
        base: b of the trained model.
        factor: k of the formula; 1 stretches by L'/T. A larger one overshoots: at L' = kT it stretches by k² − k + 1.

    Raises:
        ValueError: ``factor`` below 1 or not finite; ``length`` or ``original_length`` not positive; bad ``dim``.

    Source: transformers' ``rope_type="dynamic"``.

    >>> torch.equal(dynamic_ntk_frequencies(8, 50, 64), dynamic_ntk_frequencies(8, 64, 64))
    True
    """
    _check_two_pairs(dim)
    factor, trained = _checked_factor(factor), checked_length(original_length)
    check_number("length", length, above=0, below=math.inf)
    return stretched(inverse_frequencies(dim, base), torch.tensor(float(length)), trained, factor)


def stretched(theta: Tensor, length: Tensor, trained: float | int, factor: float | int) -> Tensor:
    """Return the dynamic frequencies for lengths ``(*shape)``: ``(*shape, pairs)``, without reading a value."""
    stretch = (factor * length.to(theta) / trained - (factor - 1)).clamp(min=1.0)
    exponent = torch.linspace(0, 1, len(theta), dtype=theta.dtype, device=theta.device)
    return theta * stretch[..., None] ** -exponent


def critical_index(dim: int, original_length: float | int, base: float | int = 10000.0) -> float:
    r"""Return the index at which a pair makes exactly one turn inside the training length.

    .. math:: i^*=N\log_b\frac T{2\pi},\qquad \theta_{i^*}T=2\pi

    Args:
        dim: rotary dimension d = 2N.
        original_length: T in tokens; T/τ gives the index of τ turns.
        base: b.

    >>> round(critical_index(32, 64), 2)
    4.03
    """
    return dim / 2 * math.log(original_length / (2 * math.pi)) / math.log(base)


def interpolation_factors(frequencies: Frequencies, base: float | int = 10000.0) -> Frequencies:
    r"""Return by how much each pair is slowed down, :math:`s_i=\theta_i/\theta_i'`.

    Args:
        frequencies: :math:`\theta'` of a recipe.
        base: b of the trained model.

    >>> interpolation_factors(ntk_aware_frequencies(6, 4.0))
    tensor([1.0000, 2.0000, 4.0000], dtype=torch.float64)
    """
    return inverse_frequencies(2 * len(frequencies), base) / frequencies


def effective_radices(frequencies: Frequencies, base: float | int = 10000.0) -> Frequencies:
    r"""Return the radix of every digit, :math:`\beta_m=\beta\lambda_m` with :math:`\lambda_m=s_m/s_{m-1}`.

    Args:
        frequencies: of a recipe.
        base: b of the trained model; :math:`\beta=b^{1/N}`.

    Returns:
        ``(pairs,)``; digit 1 first, with :math:`s_0=1`.

    >>> effective_radices(pi_frequencies(4, 8.0, 100.0), 100.0)
    tensor([80., 10.], dtype=torch.float64)
    """
    factors = interpolation_factors(frequencies, base)
    before = torch.cat([factors.new_ones(1), factors[:-1]])
    return base ** (1 / len(frequencies)) * factors / before


def _blend(theta: Tensor, kept: Tensor, factor: float | int) -> Tensor:
    """Frequencies of which the share ``kept`` stays and the rest is interpolated."""
    return theta * (kept + (1 - kept) / _checked_factor(factor))


def _checked_factor(factor: float | int) -> float | int:
    check_number("factor", factor, least=1, below=math.inf)
    return factor


def checked_length(original_length: float | int | None) -> float | int:
    """Return the training length, refused where a recipe needs one and got none.

    Args:
        original_length: T, tokens.
    """
    if original_length is None:
        raise ValueError("original_length: got None, expected the training length in tokens, which this recipe needs")
    check_number("original_length", original_length, above=0, below=math.inf)
    return original_length


def _check_two_pairs(dim: int) -> None:
    check_integer("dim", dim, 4, even=True)  # the first and the last pair are treated differently
