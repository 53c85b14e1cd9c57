"""The least bases for 1024 to 1048576 positions, head dimension 128, with the steps that exclude all smaller ones.

Run by ``python -m kexue_lib.checkpoints.positions.rope_base_bound_certificate`` with one thread, about a minute.
"""

from __future__ import annotations

import torch

from kexue_lib.checkpoints import save
from kexue_lib.positions.rope_base_bound import certified_min_bases

__all__ = ["DIM", "LENGTHS", "main"]

DIM = 128
LENGTHS = tuple(2**k for k in range(10, 21))


def main() -> None:
    """Compute the bases and their certificate, and store them.

    One thread, about a minute; nothing is random.
    """
    torch.set_num_threads(1)
    bases, exclusion = certified_min_bases(LENGTHS, DIM)
    content = {
        "length": torch.tensor([each.length for each in bases]),
        "base": torch.tensor([each.base for each in bases], dtype=torch.float64),
        "binding": torch.tensor([each.binding for each in bases]),
        "distance": exclusion.distance.int(),
        "low": exclusion.low,
        "width": exclusion.width,
        "cells": exclusion.cells.to(torch.int16),
    }
    made_with = {"dim": DIM, "tol": 1e-12, "cosines": exclusion.cosines, "seed": None, "steps": len(exclusion.low)}
    save("positions/rope_base_bound_certificate", content, made_with=made_with)


if __name__ == "__main__":
    main()
