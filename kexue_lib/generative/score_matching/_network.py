"""A residual network for the score, and its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer, check_number
from kexue_lib.generative.score_matching._losses import denoising_score_matching_loss
from kexue_lib.generative.score_matching._schedules import VESchedule, VPSchedule

_Network = TypeVar("_Network", bound=nn.Module)


class ScoreMLP(nn.Module):
    r"""A network that predicts the noise ε in x = α(t)x₀ + σ(t)ε and returns the score.

    .. math:: \psi(x,t)=-\hat\varepsilon\big(x/\sqrt{\alpha^2+\sigma^2},\ \log(\sigma/\alpha)\big)/\sigma

    ε̂ is of order 1 at every t, the score is not: it grows like 1/σ. Residual blocks with layer norm; the time enters
    each block through Fourier features of log(σ/α).

    Args:
        dim: d, width of the data.
        width: of the hidden layers.
        depth: number of residual blocks.
        schedule: gives α and σ; default: ``VPSchedule()``. Train with the same one.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1.

    Cost: 2·width² multiplications a block and sample.

    >>> ScoreMLP(2)(torch.zeros(5, 2), torch.full((5,), 0.5)).shape
    torch.Size([5, 2])
    """

    def __init__(self, dim: int, width: int = 256, depth: int = 3, schedule: VPSchedule | VESchedule | None = None):
        super().__init__()
        for name, size in (("dim", dim), ("width", width), ("depth", depth)):
            check_integer(name, size, 1)
        self.schedule = schedule if schedule is not None else VPSchedule()
        self.time = _TimeFeatures()
        self.inner = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, self.time.size) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.outer = nn.Linear(width, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Float[Tensor, "B d"], t: Float[Tensor, " B"]) -> Float[Tensor, "B d"]:
        """Return the score at points ``x (B, d)`` and times ``t (B,)``, in the dtype of ``x``."""
        dtype = self.inner.weight.dtype
        # bfloat16 has 8 bits: the time and what is made of it stay in float32.
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        alpha, sigma = self.schedule.alpha(t)[:, None], self.schedule.sigma(t)[:, None]
        features = self.time((sigma / alpha).log()).to(dtype)
        hidden = self.inner((x / (alpha**2 + sigma**2).sqrt()).to(dtype))
        for block in self.blocks:
            hidden = block(hidden, features)
        return (-self.outer(self.norm(hidden)) / sigma).to(x.dtype)


class _TimeFeatures(nn.Module):
    """Sines and cosines of u = log(σ/α), 16 frequencies from 1/4 to 8: periods from the whole range to a fraction."""

    size = 32
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        frequencies = torch.logspace(math.log2(0.25), math.log2(8.0), self.size // 2, base=2.0)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, u: Float[Tensor, "B 1"]) -> Float[Tensor, "B features"]:
        angles = u * self.frequencies.to(u.dtype)
        return torch.cat([angles.sin(), angles.cos()], -1)


class _Block(nn.Module):
    """h + W₂ silu(W₁ norm(h) + V features)."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.time = nn.Linear(features, width, bias=False)

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        return hidden + self.second(F.silu(self.first(self.norm(hidden)) + self.time(features)))


def train_score_model(
    model: _Network,
    sample_batch: Callable[[torch.Generator], Tensor],
    schedule: VPSchedule | VESchedule,
    steps: int,
    *,
    lr: float = 1e-3,
    ema: float = 0.995,
    generator: torch.Generator | None = None,
) -> _Network:
    r"""Train a score model by denoising score matching and return the moving average of its weights.

    .. math:: \min\ E_{t\sim\mathcal U[t_{\min},t_{\max}],\,x_0,\,\varepsilon}\
              \|\sigma\,\psi(\alpha x_0+\sigma\varepsilon,t)+\varepsilon\|^2/d

    Adam, its rate rising over the first twentieth of the steps and falling to 0 along half a cosine; gradients of
    norm above 1 are scaled down.

    Args:
        model: ``model(x (B, d), t (B,))`` returns the score; trained in place.
        sample_batch: ``sample_batch(generator)`` returns data x₀ ``(B, d)``.
        schedule: gives α, σ and the range of t.
        steps: optimizer steps.
        lr: largest learning rate.
        ema: decay of the moving average, in [0, 1).
        generator: source of the run's seed; default: the global one.

    Returns:
        The averaged model in evaluation mode; the one given for ``steps = 0``.

    Raises:
        TypeError, ValueError: ``lr`` is no positive number; ``steps`` and ``ema`` as :func:`kexue_lib.training.fit`.
        FloatingPointError: a loss that is not finite.

    >>> model = ScoreMLP(1, width=8, depth=1)
    >>> _ = train_score_model(model, lambda g: torch.randn(32, 1, generator=g), VPSchedule(), 3)
    """
    from kexue_lib.training import fit, warmup_cosine

    check_number("lr", lr, above=0, below=math.inf)
    check_integer("steps", steps, 0)

    def sample(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        x0 = sample_batch(rng)
        t = torch.rand(len(x0), generator=rng, dtype=x0.dtype)
        t = schedule.t_min + (schedule.t_max - schedule.t_min) * t
        return x0, t, torch.randn(x0.shape, generator=rng, dtype=x0.dtype)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x0, t, noise = batch
        return denoising_score_matching_loss(network, x0, t, schedule, noise=noise).mean() / x0[0].numel()

    result = fit(
        model,
        loss,
        sample,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr, fused=True),
        steps=steps,
        schedule=warmup_cosine(steps, warmup=steps // 20),
        clip_norm=1.0,
        ema=ema,
        log_every=100,
        progress=False,
        seed=int(torch.randint(2**31, (), generator=generator)),
    )
    return cast("_Network", result.ema.module if result.ema is not None else result.model).eval()
