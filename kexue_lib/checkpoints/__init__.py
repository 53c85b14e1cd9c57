"""Trained weights and result tables that notebooks load where training would take too long.

Each name is a file beside the script that made it: ``attention/learning.json`` and ``attention/learning.py``, run by
``python -m kexue_lib.checkpoints.attention.learning``. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kexue_lib._extras import needs_notebook_extra

__all__ = ["MAX_TABLE", "MAX_WEIGHTS", "load", "names", "rounded", "save"]

FOLDER = Path(__file__).parent
MAX_WEIGHTS, MAX_TABLE = 2_000_000, 200_000  # bytes


def save(name: str, content: Mapping[str, Any], *, made_with: dict[str, Any]) -> Path:
    """Store trained weights (safetensors) or a table of results (JSON).

    Args:
        name: ``"<part>/<name>"``.
        content: tensors by name, or anything that JSON holds.
        made_with: config, seed, steps and the measured result; versions of Python and PyTorch are added.

    Returns:
        The path of the file.

    Raises:
        ValueError: the file would be larger than 2 MB (weights) or 200 kB (table), or NaN in a table.
    """
    versions = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    made_with = {**made_with, **versions}
    if content and all(isinstance(v, Tensor) for v in content.values()):
        with needs_notebook_extra("kexue_lib.checkpoints"):
            from safetensors.torch import save as encode

        # Copies: tied weights share their memory, and a lazy conjugation or sign is not in it.
        tensors = {k: v.detach().cpu().resolve_conj().resolve_neg().contiguous().clone() for k, v in content.items()}
        path, limit = FOLDER / f"{name}.safetensors", MAX_WEIGHTS
        data = encode(tensors, metadata={"made_with": json.dumps(made_with, allow_nan=False)})
    else:
        path, limit = FOLDER / f"{name}.json", MAX_TABLE
        data = (json.dumps({"made_with": made_with, "content": content}, indent=1, allow_nan=False) + "\n").encode()
    if len(data) > limit:
        raise ValueError(f"content: got {len(data)} bytes, expected at most {limit} in a file of this kind")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def load(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a checkpoint and what it was made with.

    Args:
        name: ``"<part>/<name>"``.

    Returns:
        ``content`` (tensors on the CPU, or a table) and ``made_with``.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    >>> content, made_with = load("attention/learning")
    >>> sorted(content)
    ['bytes', 'retrieval']
    """
    weights, results = FOLDER / f"{name}.safetensors", FOLDER / f"{name}.json"
    if weights.is_file():
        with needs_notebook_extra("kexue_lib.checkpoints"):
            from safetensors import safe_open

        with safe_open(weights, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["made_with"])  # noqa: SIM118
    if results.is_file():
        stored = json.loads(results.read_text(encoding="utf-8"))
        return stored["content"], stored["made_with"]
    raise ValueError(f"name: got {name!r}, expected one of {', '.join(names()) or 'none'}")


def names() -> list[str]:
    """Return the names of all checkpoints.

    >>> "attention/learning" in names()
    True
    """
    files = [p for kind in ("safetensors", "json") for p in FOLDER.glob(f"*/*.{kind}")]
    return sorted(p.relative_to(FOLDER).with_suffix("").as_posix() for p in files)


def rounded(values: Any, digits: int = 5) -> Any:
    """Return numbers in nested lists and dicts rounded to significant digits, to keep a table small.

    Args:
        values: numbers, tensors, lists, dicts.
        digits: significant digits.

    >>> rounded({"loss": torch.tensor([0.123456789])}, 3)
    {'loss': [0.123]}
    """
    if isinstance(values, Tensor):
        values = values.tolist()
    if isinstance(values, dict):
        return {k: rounded(v, digits) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(v, digits) for v in values]
    if isinstance(values, float) and math.isfinite(values) and values:
        return float(f"{values:.{digits}g}")
    return values
