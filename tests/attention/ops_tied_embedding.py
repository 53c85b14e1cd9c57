"""The loss of a linear layer; reference: log-sum-exp of all logits in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample
from scipy.special import logsumexp

from kexue_lib.attention.tied_embedding import linear_cross_entropy

WEIGHT = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def loss_of_rows(hidden: torch.Tensor, scale: float, z_loss: float, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each row with a fixed weight of the dtype of the input; chunks of two rows."""
    weight = WEIGHT.to(hidden)
    options = {"scale": scale, "z_loss": z_loss, "reduction": "none", "chunk_size": 2}
    return linear_cross_entropy(hidden, weight, targets, **options).to(hidden.dtype)


def all_logits(hidden: np.ndarray, scale: float, z_loss: float, targets: np.ndarray) -> np.ndarray:
    logits = scale * WEIGHT.numpy() @ hidden
    log_z = logsumexp(logits)
    return np.asarray(log_z - logits[targets] + z_loss * log_z**2)


def rows() -> Iterator[Sample]:
    for seed, (scale, z_loss) in enumerate([(1.0, 0.0), (0.3, 0.1)]):
        hidden = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        yield Sample((hidden,), {"scale": scale, "z_loss": z_loss}, {"targets": torch.tensor([0, 6, 2])})


def large() -> Iterator[Sample]:
    hidden = torch.tensor([[300.0, -300.0, 0.0, 2.0, 1.0], [0.0] * 5], dtype=torch.float64)
    yield Sample((hidden,), {"scale": math.pi, "z_loss": 0.0}, {"targets": torch.tensor([1, 3])})


OPS = [
    OpInfo(
        "linear_cross_entropy",
        loss_of_rows,
        all_logits,
        rows,
        large,
        half_tolerance=16.0,  # the logits are products of the half type
        second_derivative=False,
        forward_mode=False,
    ),
]
