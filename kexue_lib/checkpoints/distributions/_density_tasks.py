"""Two uses of a trained density: predicted by a network, and as the price of rounded numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy import fft
from torch import Tensor

from kexue_lib.checkpoints import rounded
from kexue_lib.checkpoints.distributions._density_rivals import GaussianBins, train
from kexue_lib.data import digits
from kexue_lib.distributions import fourier_density as fd
from kexue_lib.mlp import mlp

__all__ = ["conditional", "pricing"]

HEAD_RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
BIN_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
TRAININGS = 4


def conditional(seeds: int) -> dict:
    """p(x_2 | x_1) of two moons: a network that predicts Fourier coefficients (26) or a mixture of 9 (27).

    400 and 2000 steps in batches of 256 of 2000 samples; the rate is the best of HEAD_RATES on 1000 others.

    Args:
        seeds: number of data sets and networks.
    """
    from sklearn.datasets import make_moons

    copies, moons = len(HEAD_RATES), []
    for seed in range(seeds):
        y = torch.from_numpy(make_moons(5000, noise=0.08, random_state=seed)[0]).float()
        y = y - y.mean(0)
        moons.append(y / (1.15 * y.abs().amax(0)))
    parts = [v.repeat_interleave(copies, 0) for v in torch.stack(moons).split((2000, 1000, 2000), 1)]
    rate, found = torch.tensor(HEAD_RATES).repeat(seeds), {}
    for name, head, outputs in (("Fourier", _fourier_head, 26), ("mixture", _mixture_head, 27)):
        for steps in (400, 2000):
            parameters = _networks((1, 64, 64, outputs), seeds, copies)
            log_prob = lambda y, w=parameters, h=head: h(_forward(w, y[..., :1]), y[..., 1])
            loss = lambda y, f=log_prob: -f(y).mean(-1)
            train(parameters, loss, rate, _moon_batches(parts[0], copies), steps)
            with torch.no_grad():
                valid, test = (-log_prob(v).clamp(min=-60).mean(-1).reshape(seeds, copies) for v in parts[1:])
            best = valid.argmin(1)
            chosen = [HEAD_RATES[i] for i in best.tolist()]
            found[f"{name}, {steps} steps"] = {"test": test[torch.arange(seeds), best], "rate": chosen}
    return rounded(found, 4)


def _networks(sizes: tuple[int, ...], seeds: int, copies: int) -> list[Tensor]:
    """Weights and biases of one network for each seed, copies times: (seeds · copies, …)."""
    nets = [mlp(sizes, generator=torch.Generator().manual_seed(seed)) for seed in range(seeds)]
    layers = zip(*(net.parameters() for net in nets), strict=True)
    return [torch.stack(v).detach().repeat_interleave(copies, 0).requires_grad_() for v in layers]


def _forward(parameters: list[Tensor], x: Tensor) -> Tensor:
    """Networks with SiLU, one for each row: (B, M, 1) -> (B, M, outputs)."""
    last = len(parameters) - 2
    for i in range(0, len(parameters), 2):
        x = torch.baddbmm(parameters[i + 1][:, None], x, parameters[i].mT)
        x = F.silu(x) if i < last else x
    return x


def _moon_batches(data: Tensor, copies: int) -> Callable[[], Tensor]:
    g = torch.Generator().manual_seed(0)

    def pick() -> Tensor:
        at = torch.randint(data.shape[1], (len(data) // copies, 256), generator=g).repeat_interleave(copies, 0)
        return data.gather(1, at[..., None].expand(-1, -1, 2))

    return pick


def _fourier_head(out: Tensor, y: Tensor) -> Tensor:
    """Log density at y (B, M) on [−1, 1] from 26 outputs each."""
    return fd.periodic_log_prob(torch.view_as_complex(out.unflatten(-1, (13, 2))), y[..., None])[..., 0]


def _mixture_head(out: Tensor, y: Tensor) -> Tensor:
    """Log density at y (B, M) from 27 outputs each: nine Gaussians."""
    logits, loc, log_scale = out.unflatten(-1, (3, 9)).unbind(-2)
    each = -0.5 * ((y[..., None] - loc) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)
    return (F.log_softmax(logits, -1) + each).logsumexp(-1)


def _transform(v: Tensor) -> Tensor:
    """Rounded cosine transform of 8 × 8 images: (64, M) -> (64, M)."""
    waves = fft.dctn(v.T.reshape(-1, 8, 8).numpy(), axes=(1, 2), norm="ortho")
    return torch.from_numpy(waves).float().flatten(1).round().T.contiguous()


def _tabulated(rows: Tensor, at: Tensor) -> Tensor:
    """Bits of each image (M',) by frequencies of rows (R, M): ½ more for each value, one below to one above all."""
    low, high = int(rows.min()) - 1, int(rows.max()) + 1
    counts = (rows[..., None] == torch.arange(low, high + 1.0)).sum(1) + 0.5
    place = (at.clamp(low, high) - low).long()
    return -(counts / counts.sum(1, keepdim=True)).gather(1, place).log2().mean(0)


def pricing() -> dict:
    """Bits for each number of the digits, as pixels and as their rounded transform, a density for each position.

    600 steps in batches of 128 images; the rate is the best of BIN_RATES on every fourth training image after training
    on the others, then all are used, in TRAININGS trainings with batches (and a dither for the series' start) of their
    own. The results are means over the trainings; "spread": the standard deviation between trainings of the difference
    from the series.
    """
    sets = digits(scale="unit")
    pixels = [(16 * v).round().T.contiguous() for v in (sets.x_train, sets.x_test)]
    alive = pixels[0].std(-1) > 0.5  # positions that are not always 0
    found = {}
    for kind, pair in (("pixels", [v[alive] for v in pixels]), ("transform", [_transform(v) for v in pixels])):
        rows, other = pair
        codecs = {f"mixture of {k}" if k > 1 else "Gaussian": partial(_mixture_bins, k=k) for k in (1, 3, 12)}
        codecs["Fourier, N = 16"] = _fourier_bins
        fourth = torch.arange(rows.shape[1]) % 4 == 0
        own = {}
        for name, make in codecs.items():
            held = []
            for r in BIN_RATES:
                codec = _learn(make(rows[:, ~fourth], 0), rows[:, ~fourth], r, 0)
                held.append(_bits(codec, rows[:, fourth]).mean().item())
            best = BIN_RATES[int(np.argmin(held))]
            bits = [_bits(_learn(make(rows, seed), rows, best, seed), other) for seed in range(TRAININGS)]
            own[name] = {"test": torch.stack(bits), "rate": best, "held": held}
        own["table of frequencies"] = {"test": _tabulated(rows, other).expand(TRAININGS, -1)}
        for result in own.values():
            ahead = result["test"] - own["Fourier, N = 16"]["test"]  # (TRAININGS, images)
            image = ahead.mean(0)
            result["minus Fourier"] = [image.mean(), image.std() / len(image) ** 0.5]
            result["spread"] = ahead.mean(1).std()
        found[kind] = {name: {**result, "test": result["test"].mean()} for name, result in own.items()}
    return rounded(found, 5)


def _mixture_bins(rows: Tensor, seed: int, k: int) -> GaussianBins:
    return GaussianBins(k, rows)


def _fourier_bins(rows: Tensor, seed: int) -> fd.FourierDensity:
    """The closed form of rows with the rounding undone by a dither."""
    dither = torch.rand(rows.shape, generator=torch.Generator().manual_seed(5 + 10 * seed)) - 0.5
    return fd.FourierDensity.from_samples(rows + dither, 16)


def _bits(codec: torch.nn.Module, rows: Tensor) -> Tensor:
    """Bits for each number, by image (M,)."""
    with torch.no_grad():
        return -codec.bin_log_prob(rows).mean(0) / math.log(2)


def _learn(codec: torch.nn.Module, rows: Tensor, rate: float, seed: int) -> torch.nn.Module:
    """Train in place on batches of 128 columns of rows (R, M); every position is a model of its own."""
    g = torch.Generator().manual_seed(6 + 10 * seed)
    pick = lambda: rows[:, torch.randint(rows.shape[1], (128,), generator=g)]
    train(
        list(codec.parameters()),
        lambda y: -codec.bin_log_prob(y).mean(-1),
        torch.full((len(rows),), rate),
        pick,
        600,
    )
    return codec
