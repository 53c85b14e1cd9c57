"""Gaussian mixtures under noise: density, score and posterior in closed form, the oracle of the part."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_shape
from kexue_lib._tracing import is_traced


class GaussianMixture:
    r"""Mixture :math:`p(x)=\sum_kw_k\,N(x;\mu_k,C_k)` with everything a diffusion model has to learn in closed form.

    Each covariance is factored once, :math:`C_k=Q_k\Lambda_kQ_k^\top`. Under noise :math:`x_t=\alpha x_0+\sigma
    \varepsilon` the mixture stays one, with the same :math:`Q_k` and :math:`\alpha^2\Lambda_k+\sigma^2`; so another
    noise level costs a multiplication, not a factorisation. Sums over components run through log-sum-exp and stay
    finite far away from all of them.

    Args:
        weights: (K,), at least 0, not all 0; they are normalised.
        means: (K, d).
        covariances: (K, d, d), symmetric, positive definite.

    Raises:
        TypeError: integers.
        ValueError: shapes that do not fit, a negative weight, a covariance that is not positive definite.

    Cost: O(Kd³) once; each method O(nKd²) for n points.
    Gradients flow to points, means and weights, not to the covariances.

    >>> mixture = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.25))
    >>> mixture.score(torch.tensor([[0.0], [0.25]]))  # 4 (tanh 4x - x)
    tensor([[0.0000],
            [2.0464]])
    >>> mixture.diffuse(0.6, 0.8).mean()
    tensor([0.])
    """

    def __init__(
        self,
        weights: Float[Tensor, " modes"],
        means: Float[Tensor, "modes d"],
        covariances: Float[Tensor, "modes d d"],
    ):
        for name, value in (("weights", weights), ("means", means), ("covariances", covariances)):
            check_dtype(name, value, "floating")
        if means.ndim != 2:
            raise ValueError(f"means: got shape {tuple(means.shape)}, expected (K, d)")
        modes, dim = means.shape
        check_shape("weights", weights, (modes,), "one for each mean")
        check_shape("covariances", covariances, (modes, dim, dim), "one for each mean")
        check_number("weights", weights, least=0, below=math.inf)
        values, vectors = torch.linalg.eigh(covariances.detach())
        _check_covariances(covariances.detach(), values, weights)
        self._hold(weights / weights.sum(), means, covariances, values, vectors)

    def _hold(self, weights: Tensor, means: Tensor, covariances: Tensor, values: Tensor, vectors: Tensor) -> None:
        self.weights, self.means, self.covariances = weights, means, covariances
        self._values, self._vectors = values, vectors

    @classmethod
    def ring(
        cls, num_modes: int = 8, radius: float = 2.0, std: float = 0.15, dtype: torch.dtype = torch.float32
    ) -> GaussianMixture:
        """Equal round modes on a circle in the plane, the first at (radius, 0).

        Args:
            num_modes: number of modes, at least 1 (default 8).
            radius: radius of the circle, at least 0 (default 2).
            std: standard deviation of each mode, above 0 (default 0.15).
            dtype: dtype of the tensors.

        Returns:
            The mixture.

        Raises:
            TypeError, ValueError: an argument outside.
        """
        check_integer("num_modes", num_modes, 1)
        check_number("radius", radius, least=0, below=math.inf)
        check_number("std", std, above=0, below=math.inf)
        angles = torch.arange(num_modes, dtype=torch.float64) * (2 * math.pi / num_modes)
        means = radius * torch.stack([angles.cos(), angles.sin()], -1)
        covariances = (std**2 * torch.eye(2, dtype=torch.float64)).repeat(num_modes, 1, 1)
        return cls(torch.ones(num_modes, dtype=dtype), means.to(dtype), covariances.to(dtype))

    def _spread(self, value: float | Tensor, x: Tensor) -> Tensor:
        """A number, or one for each point, over components and coordinates."""
        return torch.as_tensor(value, dtype=self.means.dtype, device=x.device)[..., None, None]

    def _components(
        self, x: Tensor, alpha: float | Tensor = 1.0, sigma: float | Tensor = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For points of the noised mixture: log of w_k N_k, coordinates in each eigenbasis, variances along it."""
        check_dtype("x", x, "floating")
        alpha, sigma = (
            torch.as_tensor(v, dtype=self.means.dtype, device=x.device)[..., None, None] for v in (alpha, sigma)
        )
        centred = x[..., None, :] - alpha * self.means
        coordinates = torch.einsum("...kd,kde->...ke", centred, self._vectors.to(centred.dtype))
        variances = alpha.square() * self._values + sigma.square()
        squares = (coordinates.square() / variances + variances.log()).sum(-1)
        log_parts = self.weights.log() - (squares + x.shape[-1] * math.log(2 * math.pi)) / 2
        return log_parts, coordinates, variances

    def log_prob(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Log-density at points (..., d)."""
        return self._components(x)[0].logsumexp(-1).to(x.dtype)

    def score(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        r"""Score :math:`\nabla\log p(x)=-\sum_kr_k(x)C_k^{-1}(x-\mu_k)` at points (..., d), r the responsibilities."""
        log_parts, coordinates, variances = self._components(x)
        parts = -coordinates / variances * log_parts.softmax(-1)[..., None]
        return self._from_eigenbasis(parts).sum(-2).to(x.dtype)

    def _from_eigenbasis(self, coordinates: Tensor) -> Tensor:
        return torch.einsum("...ke,kde->...kd", coordinates, self._vectors.to(coordinates.dtype))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "{n} d"]:
        """Draw n points (n, d) from the mixture.

        Raises:
            TypeError, ValueError: n is no integer of at least 0.
        """
        check_integer("n", n, 0)
        options = {"dtype": self.means.dtype, "device": self.means.device}
        noise = torch.randn(n, self.means.shape[1], generator=generator, **options)
        if n == 0:
            return noise
        mode = torch.multinomial(self.weights.detach(), n, replacement=True, generator=generator)
        roots = self._vectors * self._values.sqrt()[:, None]
        return self.means[mode] + torch.einsum("nde,ne->nd", roots[mode], noise)

    def diffuse(self, alpha: float | Tensor, sigma: float | Tensor) -> GaussianMixture:
        r"""The law of :math:`x_t=\alpha x_0+\sigma\varepsilon`, again a mixture, without a new factorisation.

        Args:
            alpha: finite factor, a number or a tensor without dimensions.
            sigma: standard deviation of the noise, above 0.

        Returns:
            The noised mixture.

        Raises:
            TypeError, ValueError: an argument outside.
        """
        check_number("alpha", alpha, above=-math.inf, below=math.inf)
        check_number("sigma", sigma, above=0, below=math.inf)
        noised = object.__new__(type(self))
        square, variance = alpha * alpha, sigma * sigma
        eye = torch.eye(self.means.shape[1], dtype=self.means.dtype, device=self.means.device)
        covariances = square * self.covariances + variance * eye
        noised._hold(self.weights, alpha * self.means, covariances, square * self._values + variance, self._vectors)
        return noised

    def posterior_mean(
        self, x_t: Float[Tensor, "*batch d"], alpha: float | Tensor, sigma: float | Tensor
    ) -> Float[Tensor, "*batch d"]:
        r"""Mean :math:`E[x_0\mid x_t]` of the data behind noised points; Tweedie: :math:`(x_t+\sigma^2s(x_t))/\alpha`.

        Args:
            x_t: noised points (..., d).
            alpha: factor of the data, a number or one for each point (...); 0 gives the mixture's mean.
            sigma: noise, at least 0, a number or one for each point (...); 0 gives x_t / alpha.

        Returns:
            Means (..., d).

        Raises:
            TypeError, ValueError: an argument outside.
        """
        means, _, log_parts = self._posterior(x_t, alpha, sigma)
        return (log_parts.softmax(-1)[..., None] * means).sum(-2).to(x_t.dtype)

    def posterior_covariance(
        self, x_t: Float[Tensor, "*batch d"], alpha: float | Tensor, sigma: float | Tensor
    ) -> Float[Tensor, "*batch d d"]:
        """Covariance (..., d, d) of the data behind noised points; arguments as in `posterior_mean`."""
        means, variances, log_parts = self._posterior(x_t, alpha, sigma)
        shares = log_parts.softmax(-1)[..., None]
        spread = means - (shares * means).sum(-2, keepdim=True)
        vectors = self._vectors.to(means.dtype)
        inside = torch.einsum("...ke,kde,kfe->...df", shares * variances, vectors, vectors)
        return (inside + torch.einsum("...kd,...kf->...df", shares * spread, spread)).to(x_t.dtype)

    def _posterior(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means of the data in each component, its variances along each eigenbasis, log-responsibilities."""
        check_number("alpha", alpha, above=-math.inf, below=math.inf)
        check_number("sigma", sigma, least=0, below=math.inf)
        log_parts, coordinates, variances = self._components(x, alpha, sigma)
        alpha, sigma = self._spread(alpha, x), self._spread(sigma, x)
        means = self.means + self._from_eigenbasis(alpha * self._values / variances * coordinates)
        return means, sigma.square() * self._values / variances, log_parts

    def mean(self) -> Float[Tensor, " d"]:
        """Mean (d,) of the mixture."""
        return self.weights @ self.means

    def covariance(self) -> Float[Tensor, "d d"]:
        """Covariance (d, d) of the mixture: within the components and between them."""
        centred = self.means - self.mean()
        between = torch.einsum("k,kd,ke->de", self.weights, centred, centred)
        return torch.einsum("k,kde->de", self.weights, self.covariances) + between

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianMixture:
        """The same mixture on another device or in another floating dtype."""
        moved = object.__new__(type(self))
        parts = (self.weights, self.means, self.covariances, self._values, self._vectors)
        moved._hold(*(part.to(device=device, dtype=dtype) for part in parts))
        return moved


def _check_covariances(covariances: Tensor, values: Tensor, weights: Tensor) -> None:
    """Read the values where that costs no wait."""
    if values.device.type != "cpu" or is_traced() or not len(weights):
        return
    if weights.detach().sum() == 0:
        raise ValueError("weights: got only zeros, expected a positive sum")
    largest = values.abs().amax(-1).clamp(min=torch.finfo(values.dtype).tiny)
    tolerance = largest * values.shape[-1] * torch.finfo(values.dtype).eps
    if not bool(((covariances - covariances.mT).abs().amax((-2, -1)) <= 10 * tolerance).all()):
        raise ValueError("covariances: got an asymmetric matrix, expected symmetric ones")
    if not bool((values[:, 0] > tolerance).all()):
        least = values[:, 0].min().item()
        raise ValueError(f"covariances: got least eigenvalue {least:.3g}, expected positive definite matrices")
