"""Devices and processes of a training run: Accelerate's settings, sharding, and state gathered from all processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from kexue_lib._extras import needs_notebook_extra

# Accelerate imports tqdm's notebook bar, which complains where ipywidgets is missing.
with needs_notebook_extra("kexue_lib.training"), warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import gather_object

__all__ = [
    "Accelerator",
    "each_shard",
    "full_optimizer_state",
    "full_state",
    "gather_object",
    "load_optimizer_state",
    "load_state",
    "loadable",
    "make_accelerator",
    "own_settings",
    "plain",
    "restored",
    "shard",
    "wants_sharding",
]


@contextmanager
def own_settings() -> Iterator[None]:
    """Give Accelerate's settings back as they were: they belong to the process, and the caller may have his own."""
    kinds = [AcceleratorState, GradientState] + ([] if dist.is_initialized() else [PartialState])
    before = [(kind._shared_state, dict(kind._shared_state)) for kind in kinds]
    try:
        yield
    finally:
        for state, settings in before:
            state.clear()
            state.update(settings)


_COMPILED = "_orig_mod."


def make_accelerator(precision: str, device: torch.device | str | None) -> Accelerator:
    """Return an Accelerator with settings of its own.

    Accelerate keeps its settings for the life of the process; each run starts from fresh ones, but several processes
    keep their group.

    Args:
        precision: "no", "bf16" or "fp16".
        device: where to train; default: the best there is.

    Raises:
        ValueError: ``precision`` is "fp16" on a CPU, or this machine has no such ``device``.
    """
    wanted = torch.device(device) if device is not None else None
    if wanted is not None and wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: got {str(wanted)!r}, but PyTorch finds {torch.cuda.device_count()} CUDA devices here"
        )
    if precision == "fp16" and (wanted.type if wanted else _best_device()) == "cpu":
        raise ValueError("precision: got 'fp16' on a CPU, expected 'bf16' or 'no' there: it needs a GPU")
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    cpu = (wanted.type if wanted else _best_device()) == "cpu"
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
    if wanted is not None and accelerator.device.type != wanted.type:
        raise ValueError(
            f"device: got {str(wanted)!r}, expected {accelerator.device.type!r}, which Accelerate finds here"
        )
    if wanted is not None and wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted)
        state: Any = accelerator.state  # its attributes come out of a dictionary
        state.device = wanted
    return accelerator


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def wants_sharding() -> bool:
    """Return whether the launcher asked for fully sharded training.

    ``accelerate launch --use_fsdp`` sets ``ACCELERATE_USE_FSDP``; with ``torchrun`` it can be set by hand.
    """
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and dist.is_initialized()


def shard(module: nn.Module, device: torch.device) -> None:
    """Shard parameters over all processes (FSDP2): every block of a ModuleList on its own, the rest together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for parameter in module.parameters():
        dist.broadcast(parameter.data, 0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for container in [m for m in module.modules() if isinstance(m, nn.ModuleList)]:
        for block in container:
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def each_shard(module: nn.Module, action: Literal["unshard", "reshard"]) -> None:
    """Gather the parameters of a sharded module, or let go of them again.

    Needed where a module is called other than through the root that was sharded, as in evaluation.
    """
    for part in module.modules():
        if hasattr(part, action):
            getattr(part, action)()


def full_state(module: nn.Module, sharded: bool) -> dict[str, Any]:
    """Return a module's whole state, gathered from all processes if it is sharded.

    All processes have to call it. What ``torch.compile`` puts before the names is left out.
    """
    if not sharded:
        return {name.replace(_COMPILED, ""): value for name, value in plain(module.state_dict()).items()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def load_state(module: nn.Module, state: dict[str, Any], sharded: bool) -> None:
    """Load what :func:`full_state` returned.

    All processes have to call it, each with the whole state.
    """
    if not sharded:
        module.load_state_dict({name: state[name.replace(_COMPILED, "")] for name in module.state_dict()})
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))


def full_optimizer_state(model: nn.Module, optimizer: Optimizer, sharded: bool) -> dict[str, Any]:
    """Return an optimizer's whole state, gathered from all processes if the model is sharded.

    All processes have to call it.
    """
    if not sharded:
        return plain(optimizer.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_optimizer_state_dict(model, optimizer, options=options)


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any], sharded: bool) -> None:
    """Load what :func:`full_optimizer_state` returned.

    All processes have to call it, each with the whole state.
    """
    if not sharded:
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def plain(state: Any) -> Any:
    """Return state without what ``torch.load(weights_only=True)`` refuses.

    That is functions (a schedule keeps its own), NumPy numbers, and NumPy arrays, which :func:`restored` brings back.
    """
    if isinstance(state, np.ndarray):
        return {_ARRAY: torch.from_numpy(state.copy())}
    if isinstance(state, dict):
        return {k: plain(v) for k, v in state.items() if not callable(v)}
    if isinstance(state, (list, tuple)):
        return type(state)(plain(v) for v in state)
    return state.item() if isinstance(state, np.generic) else state


def restored(state: Any) -> Any:
    """Return what :func:`plain` was given, functions aside."""
    if isinstance(state, dict):
        return state[_ARRAY].numpy() if set(state) == {_ARRAY} else {k: restored(v) for k, v in state.items()}
    return type(state)(restored(v) for v in state) if isinstance(state, (list, tuple)) else state


def loadable(name: str, state: Any) -> Any:
    """Return the state as data that a checkpoint can hold.

    Raises:
        TypeError: something in it could be written but not read again.
    """

    def check(part: Any, where: str) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                check(key, f"a key of {where}")
                check(value, f"{where}[{key!r}]")
        elif type(part) in (list, tuple):
            for i, value in enumerate(part):
                check(value, f"{where}[{i}]")
        elif not (part is None or isinstance(part, (bool, int, float, complex, str, bytes, Tensor))):
            expected = "numbers, strings, tensors and NumPy arrays in dicts, lists and tuples"
            raise TypeError(f"{where}: got {type(part).__name__}, expected {expected}")

    data = plain(state)
    check(data, name)
    return data


_ARRAY = "array of NumPy"
