"""Noise with heavy tails on long rows, and retrieval by contrastive embeddings at ten settings of the temperature.
Run by ``python -m kexue_lib.checkpoints.attention.softmax_robustness`` with one thread, about three minutes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kexue_lib.attention import softmax_robustness as sr
from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import digits
from kexue_lib.mlp import mlp

__all__ = ["KINDS", "LENGTHS", "SETTINGS", "main", "noisy_errors", "retrieval_run"]

KINDS, LENGTHS, SIGMA = ("uniform", "gaussian", "laplace", "gumbel", "student_t"), (256, 1024, 4096, 16384, 65536), 0.9
REPLICATES, DRAWS = 48, 100
SEEDS, STEPS, BATCH, BLUR = 10, 300, 128, 0.6
SETTINGS = {f"{t:g}": {"tau": t} for t in (2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)}
SETTINGS["1, four times the steps"] = {"tau": 1.0, "steps": 4 * STEPS}
SETTINGS["1, no bound"] = {"tau": 1.0, "bounded": False}


def noisy_errors(kind: str, n: int, seed: int) -> tuple[float, float]:
    """Errors of noisy averages over one row of n normal logits and n values of 8 normal entries.

    Args:
        kind: distribution of the noise, σ = 0.9.
        n: number of keys.
        seed: of logits, values and noise.

    Returns:
        (mean square error, median absolute error) of 100 draws.
    """
    generator = torch.Generator().manual_seed(seed)
    scores, values = torch.randn(n, generator=generator), torch.randn(n, 8, generator=generator)
    noise = {"distribution": kind, "num_samples": DRAWS, "chunk_size": 25, "generator": generator}
    error = sr.perturbed_attention(scores, values, SIGMA, **noise) - sr.attention_average(scores, values)
    return error.square().mean().item(), error.abs().median().item()


def _logits(net: nn.Module, views: Tensor, tau: float, bounded: bool) -> Tensor:
    """Logits between the two halves of the views: cosines over the temperature, or bare products."""
    embedded = net(views)
    left, right = (F.normalize(embedded, dim=-1) if bounded else embedded).chunk(2)
    return left @ right.T / tau


def retrieval_run(seed: int, *, tau: float, steps: int = STEPS, bounded: bool = True) -> dict[str, float]:
    """Train on two noisy views of digits, then look for the partner of each of 397 test views among all.

    Args:
        seed: of the weights, the batches and the noise; equal for all settings.
        tau: temperature of the loss.
        steps: optimizer steps.
        bounded: whether the logits are cosines over ``tau``, or products that know no bound.

    Returns:
        ``accuracy``, ``entropy`` of the softmax over all 397 as a share of log 397, ``raw``: the accuracy of the
        cosines of the bare features, on the same views.
    """
    data = digits(scale="standard")
    projection = torch.randn(64, 32, generator=torch.Generator().manual_seed(9593)) / 8
    train, test = data.x_train @ projection, data.x_test @ projection
    generator = torch.Generator().manual_seed(seed)
    net = mlp((32, 128, 32), generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    two_views = lambda x: x.repeat(2, 1) + BLUR * torch.randn(2 * len(x), 32, generator=generator)
    for _ in range(steps):
        batch = train[torch.randperm(len(train), generator=generator)[:BATCH]]
        loss = F.cross_entropy(_logits(net, two_views(batch), tau, bounded), torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    generator.manual_seed(1000 + seed)
    views, partner = two_views(test), torch.arange(len(test))
    with torch.no_grad():
        scores, plain = _logits(net, views, tau, bounded), _logits(nn.Identity(), views, 1.0, True)
    hit = lambda s: (s.argmax(1) == partner).double().mean().item()
    entropy = sr.softmax_entropy(scores).mean().item() / math.log(len(test))
    return {"accuracy": hit(scores), "entropy": entropy, "raw": hit(plain)}


def main() -> None:
    """Run all and store the tables.

    One thread; about three minutes.
    """
    torch.set_num_threads(1)
    tails = {
        kind: [[noisy_errors(kind, n, 1000 * i + r) for r in range(REPLICATES)] for i, n in enumerate(LENGTHS)]
        for kind in KINDS
    }
    runs = {name: [retrieval_run(seed, **setting) for seed in range(SEEDS)] for name, setting in SETTINGS.items()}
    content = {"tails": tails, "retrieval": runs}
    made_with = {"seed": list(range(SEEDS)), "steps": STEPS, "batch": BATCH, "blur": BLUR}
    made_with |= {"replicates": REPLICATES, "draws": DRAWS, "sigma": SIGMA}
    save("attention/softmax_robustness", rounded(content, 6), made_with=made_with)


if __name__ == "__main__":
    main()
