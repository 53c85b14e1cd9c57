"""Densities whose square root of modulus is a Fourier series: p(x) = |A(x)|²/(2‖a‖²), A(x) = Σ_k a_k e^{−iπkx}.

Any coefficients a give a density on [−1, 1] that is non-negative and has integral 1, with closed forms for its
distribution function, and through x = tanh((y − μ)/σ) one on the real line.

Source: Su Jianlin, "Fitting one-dimensional probability densities with Fourier series", 2024,
https://kexue.fm/archives/10007.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor, nn
from torch.nn.functional import softplus

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._tracing import is_traced
from kexue_lib.distributions.fourier_density import _line as fourier_line
from kexue_lib.distributions.fourier_density._distribution import FourierDistribution
from kexue_lib.distributions.fourier_density._quantile import correlation
from kexue_lib.distributions.fourier_density._trigonometric_sum import analysis

__all__ = [
    "FourierDensity",
    "FourierDistribution",
    "autocorrelation",
    "periodic_cdf",
    "periodic_icdf",
    "periodic_log_prob",
    "periodic_prob",
    "spectral_factor",
]


def autocorrelation(a: Inexact[Tensor, "*batch n"]) -> Complex[Tensor, "*batch n"]:
    """The Fourier coefficients of |A(x)|², which make a positive semi-definite Toeplitz matrix for every a.

    c_n = Σ_{k=0}^{N−n} a_k ā_{k+n}, n = 0 … N; |A(x)|² = Σ_{n=−N}^{N} c_n e^{iπnx} with c_{−n} = c̄_n.

    Args:
        a: coefficients (..., N + 1), complex or real.

    Returns:
        (..., N + 1) complex; c_0 = ‖a‖².

    Raises:
        TypeError: a is neither complex nor floating.
        ValueError: a has no coefficients.

    Cost: O(N log N), two FFTs. Source: article 10007, the autocorrelation.

    >>> autocorrelation(torch.tensor([1.0, 2.0])).real
    tensor([5., 2.])
    """
    _check_a(a)
    return correlation(a.to(torch.promote_types(a.dtype, torch.complex64)))


def periodic_log_prob(a: Inexact[Tensor, "*batch n"], x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """log p(x) = 2 log|A(x)| − log 2 − log‖a‖², exactly normalised on [−1, 1].

    Args:
        a: coefficients (..., N + 1), complex or real, of any scale, not all zero.
        x: points (..., M) of [−1, 1]; the density has period 2.

    Returns:
        (..., M) in the dtype of x, differentiable any number of times in a and x; −inf where A(x) is zero.

    Raises:
        TypeError: a is neither complex nor floating, x is not floating.
        ValueError: a has no coefficients, or other batch dimensions than x.

    Cost: O(MN) operations in O(M) memory. Half types compute in float32. Source: article 10007.

    >>> periodic_log_prob(torch.ones(2), torch.tensor([0.0, 0.5])).exp()
    tensor([1.0000, 0.5000])
    """
    return fourier_line.log_prob(*_prepared(a, x)).to(x.dtype)


def periodic_prob(a: Inexact[Tensor, "*batch n"], x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """p(x) = |A(x)|²/(2‖a‖²), never negative and never above (N + 1)/2.

    Arguments, returns, errors and cost as `periodic_log_prob`.

    >>> periodic_prob(torch.ones(3), torch.tensor([0.0]))
    tensor([1.5000])
    """
    return fourier_line.prob(*_prepared(a, x)).to(x.dtype)


def periodic_cdf(a: Inexact[Tensor, "*batch n"], x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """Φ(x) = (x + 1)/2 + Re Σ_{n=1}^N (c_n/c_0) (e^{iπnx} − (−1)^n)/(iπn).

    Summed from the nearer end of [−1, 1], in a form that does not cancel: exactly 0 at −1 and 1 at 1, and with full
    relative accuracy near −1.

    Args:
        a: coefficients (..., N + 1), complex or real, not all zero.
        x: points (..., M) of [−1, 1].

    Returns:
        (..., M) in the dtype of x, differentiable any number of times.

    Raises:
        As `periodic_log_prob`.

    Cost: O(MN) operations in O(M) memory. Source: article 10007, whose formula lacks the real part (see the chapter).

    >>> periodic_cdf(torch.ones(2), torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return fourier_line.cdf(*_prepared(a, x)).to(x.dtype)


def periodic_icdf(a: Inexact[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """The quantile x with Φ(x) = u: a table by FFT brackets it, safeguarded Newton steps finish.

    ∂x/∂u = 1/p(x), ∂x/∂a = −(∂Φ/∂a)/p(x) (implicit function theorem).

    Args:
        a: coefficients (..., N + 1), complex or real, not all zero.
        u: probabilities (..., M); NaN outside of [0, 1].

    Returns:
        (..., M) in the dtype of u, computed in float64, |Φ(x) − u| below 1e-12 before rounding (up to 1e-6 next to a
        zero of p); first derivatives in a and u.

    Raises:
        As `periodic_log_prob`, with u for x.

    Cost: some ten evaluations of Φ. Source: article 10007 (sampling).

    >>> periodic_icdf(torch.ones(2), torch.tensor([0.0, 0.5, 0.9092]))
    tensor([-1.0000,  0.0000,  0.5001])
    """
    return fourier_line.icdf(*_prepared(a, u, "u", torch.float64)).to(u.dtype)


def spectral_factor(density: Float[Tensor, "*batch m"], num_frequencies: int) -> Complex[Tensor, "*batch n"]:
    """Coefficients a whose |A|² is (proportional to) a given positive function: Fejér and Riesz, by the cepstrum.

    log A is the half of the Fourier series of log p with non-negative powers of e^{−iπx}; A = exp of it, truncated.

    Args:
        density: positive samples (..., M) at x_j = −1 + 2j/M, not necessarily normalised.
        num_frequencies: N ≥ 0, with 2N < M.

    Returns:
        a (..., N + 1), complex, with all zeros of A on one side of the unit circle. Exact for a positive trigonometric
        polynomial of degree ≤ N as M grows (exponentially fast; 64 N samples do unless it comes near zero).

    Raises:
        TypeError: density is not floating, num_frequencies is no int.
        ValueError: num_frequencies is negative; density has too few samples or is not positive and finite (checking
            this waits for the device).

    Cost: three FFTs of length M, in float64. Source: article 10007 asks for this converse; Kolmogorov's factorisation.

    >>> x = torch.arange(64) / 32 - 1
    >>> a = spectral_factor(5 + 4 * torch.cos(torch.pi * x), 1)
    >>> (a / a[0]).real
    tensor([1.0000, 0.5000])
    """
    check_integer("num_frequencies", num_frequencies, 0)
    check_dtype("density", density, "floating")
    check_shape("density", density, ("...", "M"))
    samples = density.shape[-1]
    if samples <= 2 * num_frequencies:
        raise ValueError(f"density: got {samples} samples, expected more than {2 * num_frequencies}")
    if density.numel() and not is_traced() and bool((~((density > 0) & density.isfinite())).any()):
        raise ValueError(f"density: got a smallest value of {density.min().item()}, expected positive finite ones")
    if density.numel() == 0:
        return density[..., : num_frequencies + 1].to(torch.promote_types(density.dtype, torch.complex64))
    cepstrum = torch.fft.fft(density.double().log()).conj() / samples
    half = torch.zeros(samples, dtype=torch.float64, device=density.device)
    half[0], half[1 : (samples + 1) // 2] = 0.5, 1.0
    if samples % 2 == 0:
        half[samples // 2] = 0.5
    wave = torch.fft.fft(cepstrum * half).exp()
    n = torch.arange(num_frequencies + 1, device=density.device)
    a = torch.fft.ifft(wave)[..., : num_frequencies + 1] * (1 - 2 * (n % 2))
    return a.to(torch.promote_types(density.dtype, torch.complex64))


class FourierDensity(nn.Module):
    """A trainable density, or a batch of them, on the real line or on [−1, 1]; every parameter value is a density.

    "periodic": p(x) = |A(x)|²/(2‖a‖²). "real": q(y) = p(tanh u) sech²(u)/scale, u = (y − loc)/scale; both tails are
    proportional to e^{−2|u|} with the same constant p(1) = p(−1).

    Args:
        num_frequencies: N ≥ 0; N = 0 is uniform, on the line the logistic density with scale σ/2.
        batch_shape: shape B of independent densities.
        loc: μ, a number or (*B); "real" only.
        scale: σ > 0, a number or (*B); "real" only.
        learn_affine: whether loc and scale are parameters, or fixed.
        support: "real" or "periodic".
        generator: source of the initial coefficients: a_0 = 1, the others small and random (never all equal).
        device, dtype: of the parameters, real.

    Parameters: coef (*B, N + 1, 2), the real and imaginary parts of a; loc and raw_scale (*B), scale = softplus(raw).
    Points y are (*B, M). Half types compute in float32.

    Raises:
        TypeError: num_frequencies is no int; at calls, y is not floating.
        ValueError: num_frequencies < 0, scale not positive, an unknown support; at calls, y of another batch shape.

    Source: article 10007; De la Fuente, Singh & Ballé, arXiv 2402.15345.

    >>> model = FourierDensity(8, loc=1.0, generator=torch.Generator().manual_seed(0))
    >>> y = model.sample((5,))
    >>> y.shape, torch.allclose(model.icdf(model.cdf(y)), y, atol=1e-5)
    (torch.Size([5]), True)
    """

    loc: Tensor
    raw_scale: Tensor

    def __init__(
        self,
        num_frequencies: int,
        batch_shape: tuple[int, ...] = (),
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        learn_affine: bool = True,
        support: Literal["real", "periodic"] = "real",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_integer("num_frequencies", num_frequencies, 0)
        check_one_of("support", support, ("real", "periodic"))
        self.num_frequencies, self.batch_shape, self.support = num_frequencies, tuple(batch_shape), support
        shape = (*self.batch_shape, num_frequencies + 1, 2)
        coef = 0.02 * torch.randn(shape, generator=generator, dtype=dtype)
        coef[..., 0, 0] += 1
        self.coef = nn.Parameter(coef.to(device))
        if support == "real":
            check_number("scale", scale, above=0)
            place = {"dtype": coef.dtype, "device": self.coef.device}
            loc, scale = (torch.as_tensor(v, **place).expand(self.batch_shape).clone() for v in (loc, scale))
            for name, value in (("loc", loc), ("raw_scale", scale + (-torch.expm1(-scale)).log())):
                if learn_affine:
                    self.register_parameter(name, nn.Parameter(value))
                else:
                    self.register_buffer(name, value)

    @classmethod
    def from_samples(
        cls,
        y: Float[Tensor, "*batch m"],
        num_frequencies: int,
        learn_affine: bool = True,
        support: Literal["real", "periodic"] = "real",
        scale_factor: float = 1.5,
    ) -> FourierDensity:
        """A density close to the samples y (..., M) without training, one for each row.

        loc = mean, scale = scale_factor standard deviations (2 fits better where the outer peaks are narrow); a is the
        spectral factor of the empirical Fourier coefficients times Fejér's weights 1 − n/(N + 1), a kernel estimate
        that is itself a non-negative trigonometric polynomial.
        """
        check_integer("num_frequencies", num_frequencies, 0)
        check_number("scale_factor", scale_factor, above=0)
        _check_points(y, "y")
        y = y.detach().to(torch.promote_types(y.dtype, torch.float32))
        place, x = (0.0, 1.0), y.double()
        if support == "real":
            loc, scale = place = y.mean(-1), scale_factor * y.std(-1, correction=0)
            x = ((x - loc.unsqueeze(-1)) / scale.unsqueeze(-1)).tanh()
        model = cls(num_frequencies, tuple(y.shape[:-1]), *place, learn_affine, support, None, y.device, y.dtype)
        count = num_frequencies + 1
        weight = torch.full_like(x, 1 / x.shape[-1]).to(torch.complex128)
        c = analysis(weight, -x, None, count)
        fejer = 1 - torch.arange(count, device=y.device) / count
        c = torch.cat((0.5 * c[..., :1], c[..., 1:] * fejer[1:] * (1 - 1e-3)), dim=-1)
        sign = 1 - 2 * (torch.arange(count, device=y.device) % 2)
        density = 2 * torch.fft.ifft(c * sign, n=128 * count, norm="forward").real
        a = spectral_factor(density, num_frequencies)
        with torch.no_grad():
            model.coef.copy_(torch.view_as_real(a))
        return model

    @property
    def a(self) -> Complex[Tensor, "*batch n"]:
        """Coefficients (*B, N + 1)."""
        return torch.view_as_complex(self.coef.to(torch.promote_types(self.coef.dtype, torch.float32)))

    @property
    def scale(self) -> Float[Tensor, "*batch"]:
        """σ (*B)."""
        return softplus(self.raw_scale, threshold=800)

    def distribution(self, validate_args: bool | None = None) -> FourierDistribution:
        """The same density as a `torch.distributions.Distribution`, sharing the parameters and their gradients."""
        place = (self.loc, self.scale) if self.support == "real" else (None, None)
        return FourierDistribution(self.a, *place, validate_args=validate_args)

    def log_prob(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """log q(y); finite unless A vanishes. Cost: O(MN) operations, O(M) memory."""
        return self._at(fourier_line.log_prob, y)

    def prob(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """q(y)."""
        return self.log_prob(y).exp()

    def cdf(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Probability of (−∞, y]; on the line with full relative accuracy in the lower tail."""
        return self._at(fourier_line.cdf, y)

    def icdf(self, u: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Quantile at u, computed in float64; ∓inf at 0 and 1 on the line, NaN outside of [0, 1]."""
        return self._at(fourier_line.icdf, u, "u", torch.float64)

    def bin_log_prob(self, centre: Float[Tensor, "*batch m"], width: float = 1.0) -> Float[Tensor, "*batch m"]:
        """Logarithm of the probability of [centre − width/2, centre + width/2], the rate of an entropy coder in nats.

        Not a difference of two distribution functions: it keeps its digits for narrow bins and in the tails, and is
        always finite (a bin never gets less than half of eps times its length in x).
        """
        check_number("width", width, above=0)
        return self._at(lambda a, y, place: fourier_line.bin_log_prob(a, y, width, place), centre, "centre")

    def rsample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
        """Samples (*B, *shape) with gradients to all parameters through the implicit function theorem."""
        count = math.prod(shape)
        u = torch.rand(*self.batch_shape, count, generator=generator, dtype=torch.float64, device=self.coef.device)
        y = self._at(fourier_line.icdf, u.clamp(min=2.0**-54), "u", torch.float64)
        return y.to(self.coef.dtype).reshape(*self.batch_shape, *shape)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
        """Samples (*B, *shape) without gradients."""
        return self.rsample(shape, generator)

    def smoothness_penalty(self, normalised: bool = True) -> Float[Tensor, "*batch"]:
        """∫_{−1}^1 |p'|² dx = Σ_n 2π²n²|c_n|²/(4c_0²) (*B), of the density; of f = |A|² if not normalised.

        The second form is the article's; an optimiser can make it small by shrinking a, which changes no density.
        """
        c = correlation(self.a)
        c = c / (2 * c[..., :1].real) if normalised else c
        n = torch.arange(c.shape[-1], device=c.device)
        return 4 * math.pi**2 * (n.square() * (c.real.square() + c.imag.square())).sum(-1)

    def extra_repr(self) -> str:
        return f"num_frequencies={self.num_frequencies}, batch_shape={self.batch_shape}, support={self.support!r}"

    def _at(self, function, y: Tensor, name: str = "y", dtype: torch.dtype = torch.float32) -> Tensor:
        _check_points(y, name)
        check_shape(name, y, (*self.batch_shape, "M"))
        place = (self.loc, self.scale) if self.support == "real" else ()
        a, points, *place = fourier_line.common_precision(self.a, y.to(torch.promote_types(y.dtype, dtype)), *place)
        return function(a, points, place=tuple(place) or None).to(y.dtype)


def _prepared(a: Tensor, x: Tensor, name: str = "x", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    _check_a(a)
    _check_points(x, name)
    check_shape(name, x, (*a.shape[:-1], "M"), "as a has")
    a, x = fourier_line.common_precision(a, x.to(torch.promote_types(x.dtype, dtype)))
    return a, x


def _check_a(a: Tensor) -> None:
    check_dtype("a", a, "floating or complex")
    if a.dim() == 0 or a.shape[-1] == 0:
        raise ValueError(f"a: got shape {tuple(a.shape)}, expected (..., N + 1) with at least one coefficient")


def _check_points(x: Tensor, name: str) -> None:
    check_dtype(name, x, "floating")
    check_shape(name, x, ("...", "M"))
