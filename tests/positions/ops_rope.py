"""The operators of rotary embedding; reference: explicit rotation matrices."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import torch
from opinfo import OpInfo, Sample, spoiled
from torch import Tensor

from kexue_lib.positions import rope


def rotated(x: Tensor, layout: str, inverse: bool) -> Tensor:
    """Rotate by positions 0, 1, … with six of eight components turning."""
    positions = torch.arange(x.shape[-2], device=x.device)
    cos, sin = rope.cos_sin(positions, rope.inverse_frequencies(6, 50.0), dtype=torch.float64)
    return rope.apply_rotary(
        x, *(t.to(torch.promote_types(x.dtype, torch.float32)) for t in (cos, sin)), layout=layout, inverse=inverse
    )


def rotation_matrices(x: np.ndarray, layout: str, inverse: bool) -> np.ndarray:
    out = np.empty_like(x)
    for m in range(x.shape[-2]):
        matrix = np.eye(x.shape[-1])
        for i in range(3):
            a, b = (i, i + 3) if layout == "half" else (2 * i, 2 * i + 1)
            angle = (-m if inverse else m) * 50.0 ** (-i / 3)
            matrix[[a, a, b, b], [a, b, a, b]] = [math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)]
        out[..., m, :] = x[..., m, :] @ matrix.T
    return out


X, TABLE = torch.ones(3, 8), torch.ones(3, 2)
REFUSED = {
    "rotary": spoiled(
        rope.apply_rotary,
        {"x": X, "cos": TABLE, "sin": TABLE},
        ({"x": X.long()}, TypeError, "x: got torch.int64"),
        ({"cos": TABLE.long()}, TypeError, "cos: got torch.int64"),
        ({"sin": TABLE.cfloat()}, TypeError, "sin: got torch.complex64"),
        ({"x": X[0]}, ValueError, "x: got shape (8,)"),
        ({"cos": torch.ones(3, 5), "sin": torch.ones(3, 5)}, ValueError, "cos: got rotary dimension 10"),
        ({"sin": TABLE[:, :1]}, ValueError, "sin: got shape (3, 1)"),
        ({"cos": torch.ones(4, 2)}, ValueError, "cos: got shape (4, 1)"),
        ({"layout": "neox"}, ValueError, "layout: got 'neox'"),
    ),
}

OPS = [
    *(
        OpInfo(
            f"apply_rotary_{layout}{'_inverse' if inverse else ''}",
            partial(rotated, layout=layout, inverse=inverse),
            partial(rotation_matrices, layout=layout, inverse=inverse),
            lambda: [
                Sample((torch.randn(2, 3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),))
            ],
            lambda: [Sample((torch.tensor([0.0, -0.0, 1e30, -1e-30], dtype=torch.float64).repeat(2, 1, 2),))],
            errors=REFUSED["rotary"],
        )
        for layout, inverse in itertools.product(("half", "interleaved"), (False, True))
    ),
]
