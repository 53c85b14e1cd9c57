"""The loss of a linear layer; reference: log-sum-exp of all logits in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
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


HIDDEN, TABLE, TARGETS = torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 1])
REFUSED = {
    "loss": spoiled(
        linear_cross_entropy,
        {"hidden": HIDDEN, "weight": TABLE, "targets": TARGETS},
        ({"hidden": HIDDEN.long()}, TypeError, "hidden: got torch.int64"),
        ({"weight": TABLE.double()}, TypeError, "weight: got torch.float64"),
        ({"weight": TABLE[:, :2]}, ValueError, "weight: got shape (4, 2)"),
        ({"targets": TARGETS.double()}, TypeError, "targets: got torch.float64"),
        ({"targets": TARGETS[:1]}, ValueError, "targets: got shape (1,)"),
        ({"targets": torch.tensor([0, 4])}, ValueError, "targets: got 4"),
        ({"targets": torch.tensor([0, -1])}, ValueError, "targets: got -1"),
        ({"bias": torch.ones(3)}, ValueError, "bias: got shape (3,)"),
        ({"ignore_index": "1"}, TypeError, "ignore_index: got '1'"),
        ({"chunk_size": 0}, ValueError, "chunk_size: got 0"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: got 1.5"),
        ({"soft_cap": 0.0}, ValueError, "soft_cap: got 0.0"),
        ({"z_loss": -1.0}, ValueError, "z_loss: got -1.0"),
        ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
    ),
}

OPS = [
    OpInfo(
        "linear_cross_entropy",
        loss_of_rows,
        all_logits,
        rows,
        large,
        errors=REFUSED["loss"],
        half_tolerance=16.0,  # the logits are products of the half type
        second_derivative=False,
        forward_mode=False,
    ),
]
