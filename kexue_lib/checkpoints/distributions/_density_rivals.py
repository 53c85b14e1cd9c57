"""Rivals of a Fourier density: Gaussian mixtures, a monotone network, kernels. Batches of models in rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GaussianBins", "MonotoneNetwork", "TrainedMixture", "expectation_maximisation", "kernels", "train"]

WIDTHS = (0.003, 0.006, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)


def train(
    parameters: list[Tensor], loss: Callable[[Tensor], Tensor], rate: Tensor, pick: Callable[[], Tensor], steps: int
) -> None:
    """Train independent models, the rows of each parameter, by Adam; the rates fall to 0 as a cosine.

    Args:
        parameters: tensors (B, …), changed in place.
        loss: of a batch, for each model (B,).
        rate: for each model (B,), at the start.
        pick: draws a batch.
        steps: number of steps. Infinite gradients count as 0.
    """
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step in range(1, steps + 1):
        grads = torch.autograd.grad(loss(pick()).sum(), parameters)
        fall = 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        with torch.no_grad():
            for p, g, m, v in zip(parameters, grads, first, second, strict=True):
                g = g.nan_to_num(0.0, 0.0, 0.0)
                m.lerp_(g, 0.1)
                v.lerp_(g.square(), 0.001)
                change = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
                p.sub_(fall * rate.reshape(-1, *[1] * (p.dim() - 1)) * change)


class TrainedMixture(nn.Module):
    """k Gaussians for each row of y (B, M), trained by gradient descent; copies consecutive rows share a start.

    "spread": means at random samples, half of the standard deviation wide. "near the mean": all means within a few
    hundredths of the standard deviation, each as wide as the data.
    """

    def __init__(self, k: int, y: Tensor, start: str, copies: int):
        super().__init__()
        g = torch.Generator().manual_seed(3)
        groups, std = len(y) // copies, y.std(-1, keepdim=True)
        if start == "spread":
            at = torch.randint(y.shape[1], (groups, k), generator=g).repeat_interleave(copies, 0)
            loc, width = y.gather(1, at), 0.5 * std
        else:
            noise = torch.randn(groups, k, generator=g).repeat_interleave(copies, 0)
            loc, width = y.mean(-1, keepdim=True) + 0.02 * std * noise, std
        self.logits = nn.Parameter(torch.zeros(len(y), k))
        self.loc, self.log_scale = nn.Parameter(loc), nn.Parameter(width.log().repeat(1, k))

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density (B, M)."""
        u = (y[:, None] - self.loc[..., None]) * (-self.log_scale)[..., None].exp()
        level = F.log_softmax(self.logits, -1) - self.log_scale - 0.5 * math.log(2 * math.pi)
        return (level[..., None] - 0.5 * u.square()).logsumexp(1)


class GaussianBins(nn.Module):
    """k Gaussians for each row of integers (R, M), as bins of width 1; means from −1 to 1 standard deviations."""

    def __init__(self, k: int, rows: Tensor):
        super().__init__()
        mean, std = rows.mean(-1)[:, None, None], rows.std(-1).clamp(min=0.3)[:, None, None]
        at = torch.linspace(-1, 1, k) if k > 1 else torch.zeros(1)
        self.logits = nn.Parameter(torch.zeros(len(rows), 1, k))
        self.loc = nn.Parameter(mean + std * at)
        self.log_scale = nn.Parameter(std.log().repeat(1, 1, k))

    def bin_log_prob(self, y: Tensor) -> Tensor:
        """Log probability of [y ± ½] (R, M), at least 1e-9."""
        u = (y[..., None] - self.loc).abs()  # this side keeps digits
        near, far = ((u + e) / self.log_scale.exp() for e in (-0.5, 0.5))
        share = torch.erfc(near / 2**0.5) - torch.erfc(far / 2**0.5)
        return (0.5 * (self.logits.softmax(-1) * share).sum(-1)).clamp(min=1e-9).log()


class MonotoneNetwork(nn.Module):
    """Ballé et al. (2018): the distribution function is a sigmoid of layers with positive weights.

    h ← softplus(H) h + b, then h ← h + tanh(g) tanh(h) except after the last; the density is the derivative, carried
    along. Inputs are standardised by each row's mean and standard deviation.
    """

    def __init__(self, hidden: tuple[int, ...], y: Tensor, copies: int):
        super().__init__()
        generator, sizes = torch.Generator().manual_seed(4), (1, *hidden, 1)
        self.mean, self.std = y.mean(-1, keepdim=True), y.std(-1, keepdim=True)
        gain, groups = 10.0 ** (1 / (len(sizes) - 1)), len(y) // copies
        self.weights, self.shifts, self.gates = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            value = math.log(math.expm1(1 / gain / fan_out))
            self.weights.append(torch.full((len(y), fan_out, fan_in), value))
            b = torch.rand(groups, fan_out, 1, generator=generator) - 0.5
            self.shifts.append(b.repeat_interleave(copies, 0))
        for width in hidden:
            self.gates.append(torch.zeros(len(y), width, 1))

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density (B, M)."""
        h = ((y - self.mean) / self.std)[:, None]
        slope = torch.ones_like(h)
        for i, (weight, shift) in enumerate(zip(self.weights, self.shifts, strict=True)):
            weight = F.softplus(weight)
            h, slope = weight @ h + shift, weight @ slope
            if i < len(self.gates):
                gate, bend = self.gates[i].tanh(), h.tanh()
                h, slope = h + gate * bend, slope * (1 + gate * (1 - bend.square()))
        h, slope = h[:, 0], slope[:, 0]
        return F.logsigmoid(h) + F.logsigmoid(-h) + slope.clamp(min=1e-30).log() - self.std.log()


def expectation_maximisation(sets: dict[str, Tensor], components: int) -> dict:
    """scikit-learn's mixture, two starts, for each seed; test losses."""
    from sklearn.mixture import GaussianMixture

    losses = []
    for seed, (y, fresh) in enumerate(zip(sets["train"], sets["test"], strict=True)):
        mixture = GaussianMixture(components, n_init=2, random_state=seed).fit(y[:, None].numpy())
        losses.append(-mixture.score(fresh[:, None].numpy()))
    return {"test": torch.tensor(losses)}


def kernels(sets: dict[str, Tensor]) -> dict:
    """A Gaussian kernel on each training sample, its width chosen on the validation samples."""

    def loss(y: Tensor, at: Tensor, width: float) -> float:
        total = 0.0
        for part in at.split(2000):
            log_sum = (-0.5 * ((part[:, None] - y) / width).square()).logsumexp(1)
            total -= (log_sum - math.log(len(y) * width * math.sqrt(2 * math.pi))).sum().item()
        return total / len(at)

    chosen = [
        min((loss(y, v[:2000], w), w) for w in WIDTHS)[1] for y, v in zip(sets["train"], sets["valid"], strict=True)
    ]
    trio = zip(sets["train"], sets["test"], chosen, strict=True)
    return {"test": torch.tensor([loss(y, t, w) for y, t, w in trio]), "width": chosen}
