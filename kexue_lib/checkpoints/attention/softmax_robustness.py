"""Noise with heavy tails on long rows, and retrieval by contrastive embeddings at fourteen settings of the temperature.
Run by ``python -m kexue_lib.checkpoints.attention.softmax_robustness`` with one thread, about four minutes."""

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
DEGREES = 3.0  # of freedom of Student-t, whose standard deviation at scale 1 is √(df/(df − 2))
REPLICATES, DRAWS = 48, 100
SEEDS, STEPS, BATCH, BLUR = 10, 300, 128, 0.6
SETTINGS = {f"{t:g}": {"tau": t} for t in (2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)}
SETTINGS["1, four times the steps"] = {"tau": 1.0, "steps": 4 * STEPS}
SETTINGS["0.05, four times the steps"] = {"tau": 0.05, "steps": 4 * STEPS}
SETTINGS["1, no bound"] = {"tau": 1.0, "bounded": False}
SETTINGS["untrained network"] = {"tau": 1.0, "steps": 0}
SETTINGS["learned, from 1"] = {"tau": 1.0, "learned": True}
SETTINGS["learned, four times the steps"] = {"tau": 1.0, "learned": True, "steps": 4 * STEPS}


def noisy_errors(kind: str, n: int, seed: int) -> tuple[float, float]:
    """Errors of noisy averages over one row of n normal logits and n values of 8 normal entries.

    Args:
        kind: distribution of the noise, of standard deviation σ = 0.9.
        n: number of keys.
        seed: of logits, values and noise.

    Returns:
        (mean square error, median absolute error) of 100 draws.
    """
    generator = torch.Generator().manual_seed(seed)
    scores, values = torch.randn(n, generator=generator), torch.randn(n, 8, generator=generator)
    noise = {"distribution": kind, "df": DEGREES, "num_samples": DRAWS, "chunk_size": 25, "generator": generator}
    scale = SIGMA * math.sqrt(1 - 2 / DEGREES) if kind == "student_t" else SIGMA
    error = sr.perturbed_attention(scores, values, scale, **noise) - sr.attention_average(scores, values)
    return error.square().mean().item(), error.abs().median().item()


def _logits(net: nn.Module, views: Tensor, tau: float | Tensor, bounded: bool) -> Tensor:
    """Logits between the two halves of the views: cosines over the temperature, or bare products."""
    embedded = net(views)
    left, right = (F.normalize(embedded, dim=-1) if bounded else embedded).chunk(2)
    return left @ right.T / tau


def retrieval_run(
    seed: int, *, tau: float, steps: int = STEPS, bounded: bool = True, learned: bool = False
) -> dict[str, float]:
    """Train on two noisy views of digits, then look for the partner of each of 397 test views among all.

    Args:
        seed: of the weights, the batches and the noise; equal for all settings.
        tau: temperature of the loss.
        steps: optimizer steps.
        bounded: whether the logits of the loss are cosines over ``tau``, or products that know no bound.
        learned: whether the logarithm of the temperature is one more parameter, which starts from ``tau``.

    Returns:
        ``accuracy`` by cosine and ``product``, that by bare products; ``raw`` and ``raw_product``, the same two of the
        bare features, on the same views; ``entropy`` of the softmax of the loss over all 397 as a share of log 397;
        ``tau`` at the end.
    """
    data = digits(scale="standard")
    projection = torch.randn(64, 32, generator=torch.Generator().manual_seed(9593)) / 8
    train, test = data.x_train @ projection, data.x_test @ projection
    generator = torch.Generator().manual_seed(seed)
    net = mlp((32, 128, 32), generator=generator)
    log_tau = nn.Parameter(torch.tensor(math.log(tau)), requires_grad=learned)
    optimizer = torch.optim.Adam([*net.parameters(), *[log_tau] * learned], lr=3e-3)
    two_views = lambda x: x.repeat(2, 1) + BLUR * torch.randn(2 * len(x), 32, generator=generator)
    for _ in range(steps):
        batch = train[torch.randperm(len(train), generator=generator)[:BATCH]]
        logits = _logits(net, two_views(batch), log_tau.exp() if learned else tau, bounded)
        loss = F.cross_entropy(logits, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    generator.manual_seed(1000 + seed)
    views, partner = two_views(test), torch.arange(len(test))
    last = log_tau.exp().item() if learned else tau
    hit = lambda scores: (scores.argmax(1) == partner).double().mean().item()
    with torch.no_grad():
        entropy = sr.softmax_entropy(_logits(net, views, last, bounded)).mean().item() / math.log(len(test))
        found = {
            name: hit(_logits(model, views, 1.0, by_cosine))
            for name, model, by_cosine in (
                ("accuracy", net, True),
                ("product", net, False),
                ("raw", nn.Identity(), True),
                ("raw_product", nn.Identity(), False),
            )
        }
    return {**found, "entropy": entropy, "tau": last}


def main() -> None:
    """Run all and store the tables.

    One thread; about four minutes.
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
