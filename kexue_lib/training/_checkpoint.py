"""Checkpoints of training runs: one file in one folder, replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from types import CodeType
from typing import Any

import torch

FILE = "state.pt"


def write_checkpoint(folder: Path | str, state: dict[str, Any]) -> str | None:
    """Write a checkpoint so that a kill at any moment, or a full disk, leaves the previous one whole.

    The state is written beside the old file, forced to the disk, and moved over it by ``os.replace``, which a
    POSIX file system carries out at once or not at all.

    Args:
        folder: created if it does not exist.
        state: tensors, numbers and strings in dicts and lists.

    Returns:
        None, or a sentence that says why nothing could be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(folder, {"step": 3}), read_checkpoint(folder)
    (None, {'step': 3})
    """
    target = Path(folder) / FILE
    partial = target.with_name(f"{FILE}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _drop_partials(target.parent)
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
        _sync_folder(target.parent)
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True) if target.parent.is_dir() and os.access(target.parent, os.W_OK) else None
        kept = "the checkpoint before it is whole" if target.exists() else "there is none before it"
        return f"checkpoint: could not write {target.name} in {target.parent} ({error}); {kept}"
    return None


def read_checkpoint(folder: Path | str) -> dict[str, Any] | None:
    """Return the checkpoint in a folder, or None if there is none.

    Args:
        folder: as given to :func:`write_checkpoint`.

    Returns:
        The state; tensors on the CPU. Nothing but data is unpickled.

    Raises:
        ValueError: the file is damaged, or no checkpoint of a run.

    >>> read_checkpoint("no/such/folder") is None
    True
    """
    target = Path(folder) / FILE
    if not target.is_file():
        return None
    try:
        return torch.load(target, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        # Without PyTorch's own words, which would advise to load the file without its safeguard.
        raise ValueError(
            f"checkpoint: {target} is damaged or no checkpoint of a run ({type(error).__name__}); remove it, or give "
            "resume=False or another folder"
        ) from None


def check_same_run(saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuse a checkpoint that belongs to another run.

    Args:
        saved: what :func:`read_checkpoint` returned.
        identity: of the run that wants to go on.

    Raises:
        ValueError: naming what differs, with both values.

    >>> check_same_run({"identity": {"seed": 1}}, {"seed": 2})
    Traceback (most recent call last):
    ...
    ValueError: checkpoint: of another run: seed is 1 there and 2 here; resume=False or another folder begins anew
    """
    differences = []
    for name, here in identity.items():
        there = saved["identity"].get(name)
        other_python = name in ("loss", "schedule") and saved["identity"].get("python") != identity.get("python")
        if there == here or name == "python" or other_python:  # another Python compiles the same code otherwise
            continue
        if name == "model":
            odd = sorted(k for k in {*there, *here} if there.get(k) != here.get(k))
            shown = f"parameter {odd[0]} has shape {there.get(odd[0])} there and {here.get(odd[0])} here"
            differences.append(f"model: {shown}" + (f", and {len(odd) - 1} more differ" if len(odd) > 1 else ""))
        else:
            differences.append(f"{name} is {there} there and {here} here")
    if differences:
        differences.append("resume=False or another folder begins anew")
        raise ValueError("checkpoint: of another run: " + "; ".join(differences))


def described(function: Any) -> str | None:
    """The name of a function and a hash of its code, which tell it from another one.

    >>> described(lambda x: x + 1) == described(lambda x: x + 2)
    False
    """
    if function is None:
        return None
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return name if code is None else f"{name} {hashlib.sha256(_code(code).encode()).hexdigest()[:12]}"


def _code(code: CodeType) -> str:
    constants = [
        _code(c) if isinstance(c, CodeType) else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    return repr((code.co_code.hex(), code.co_names, constants))


def _drop_partials(folder: Path) -> None:
    """Remove what killed runs left half written."""
    for partial in folder.glob(f"{FILE}.*.partial"):
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the move itself durable; a folder cannot be opened for that on Windows."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
