"""The tiny byte model trained with queries that grow like log n, three seeds, weights in half precision.

Run by ``python -m kexue_lib.checkpoints.positions.tiny_lm_log_n`` with one thread, about ten minutes."""

from __future__ import annotations

from kexue_lib.checkpoints.positions.tiny_lm import main

__all__ = ["main"]

if __name__ == "__main__":
    main("log_n", "positions/tiny_lm_log_n")
