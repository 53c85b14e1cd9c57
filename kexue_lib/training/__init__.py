"""One training loop for every chapter that trains one network, on Hugging Face Accelerate.

The same call runs on a CPU, on a GPU, and under ``torchrun`` or ``accelerate launch`` on many processes and machines:
data parallel (DDP) by default, fully sharded (FSDP2) when the launcher sets ``ACCELERATE_USE_FSDP=true``.
"""

from __future__ import annotations

import math
import platform
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib._extras import needs_notebook_extra
from kexue_lib.training._checkpoint import check_same_run, described, read_checkpoint, write_checkpoint
from kexue_lib.training._processes import (
    Accelerator,
    each_shard,
    full_optimizer_state,
    full_state,
    gather_object,
    load_optimizer_state,
    load_state,
    loadable,
    make_accelerator,
    own_settings,
    plain,
    restored,
    shard,
    wants_sharding,
)
from kexue_lib.training._schedule import Schedule, make_scheduler, warmup_cosine, warmup_linear

with needs_notebook_extra("kexue_lib.training"):
    from tqdm.std import tqdm

__all__ = ["FitResult", "fit", "process_generator", "warmup_cosine", "warmup_linear"]

Losses = Tensor | dict[str, Tensor]
_Model = TypeVar("_Model", bound=nn.Module)


class FitResult(NamedTuple):
    """What :func:`fit` returns.

    ``model`` is the trained model (the one given), ``ema`` its exponential moving average or None, ``history`` maps
    ``step``, ``loss``, ``lr``, ``grad_norm`` and every logged or evaluated name to a float64 tensor ``(k,)``, NaN
    where nothing was measured, and ``steps`` is the number of steps the model has behind it.
    """

    model: nn.Module
    ema: AveragedModel | None
    history: dict[str, Tensor]
    steps: int


def process_generator(seed: int, process: int = 0) -> torch.Generator:
    """Return the generator that one process of a run draws its batches from.

    Args:
        seed: of the run.
        process: rank of the process.

    Returns:
        A CPU generator; different (seed, process) give independent streams.

    >>> process_generator(0, 1).initial_seed() != process_generator(1, 0).initial_seed()
    True
    """
    # SplitMix64: neighbouring (seed, process) pairs must not give overlapping Mersenne Twister states.
    z = (seed * 0x9E3779B97F4A7C15 + process * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return torch.Generator().manual_seed((z ^ (z >> 31)) % 2**63)


def fit(
    model: _Model,
    loss: Callable[[_Model, Any], Losses],
    sample: Callable[[torch.Generator], Any],
    *,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | Optimizer,
    steps: int,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    precision: Literal["no", "bf16", "fp16"] = "no",
    ema: float | None = None,
    evaluate: Callable[[_Model], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    log_every: int = 1,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 0,
    resume: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a model for a number of steps.

    One step: the mean loss of ``accumulate`` batches, backward, clipping, optimizer, schedule, moving average. With
    several processes each draws its own batches, so k processes with batch b see k·b samples; equal seed and number
    of processes give equal bits on a CPU, also across a kill and a resume.

    Args:
        model: moved to the device and trained in place.
        loss: ``loss(model, batch)`` returns a scalar, or a dict of scalars with key ``"loss"``; all are logged.
        sample: ``sample(generator)`` returns a batch: a tensor, or tuples and dicts of tensors. With ``state_dict``
            and ``load_state_dict`` its state is part of the checkpoint.
        optimizer: makes the optimizer from the parameters, or is one (FSDP needs the first form).
        steps: optimizer steps in total; 0 returns the model unchanged.
        schedule: factor of the learning rate at step 0, 1, …, or a function making a scheduler from the optimizer.
        clip_norm: largest Euclidean norm of the gradient.
        accumulate: batches of one step.
        precision: ``"bf16"`` or ``"fp16"`` for mixed precision.
        ema: decay in [0, 1) of the moving average of the parameters.
        evaluate: ``evaluate(model)`` returns named numbers; called without gradients in evaluation mode.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        log_every: steps between rows of the history; a row's loss is the mean since the row before.
        checkpoint: folder for the checkpoint.
        checkpoint_every: steps between checkpoints; 0 writes one at the end only.
        resume: go on from the checkpoint if there is one; ``steps`` may be more than before. A finished run is said so.
        seed: of batches, dropout and anything else random in the run; the global generators are left alone.
        device: default: what Accelerate finds.
        progress: show a bar with loss, rate and time left, on a terminal or in a notebook.

    Returns:
        ``FitResult(model, ema, history, steps)``.

    Raises:
        ValueError: ``steps`` < 0, ``accumulate`` < 1, ``clip_norm`` ≤ 0, ``ema`` outside [0, 1), unknown
            ``precision``, ``evaluate_every`` without ``evaluate``, a ``device`` that is not there, a checkpoint of
            another run (model, loss, optimizer and its options, schedule, clipping, accumulation, precision, average,
            seed, number of processes), of more steps than ``steps``, or damaged.
        TypeError: a ``state_dict`` of ``sample`` that a checkpoint could not give back.
        FloatingPointError: a loss that is not finite, with its step.
        OSError: the checkpoint cannot be written; the one before it stays whole.

    Cost: the model's own; losses stay on the device and are read every ``log_every`` steps.

    >>> result = fit(nn.Linear(1, 1), lambda m, x: (m(x) - x).square().mean(), lambda g: torch.randn(8, 1, generator=g),
    ...              optimizer=lambda p: torch.optim.SGD(p, lr=0.1), steps=200)
    >>> result.history["loss"][-1].item() < 1e-3
    True
    """
    _check_arguments(steps, accumulate, clip_norm, precision, ema, evaluate, evaluate_every, log_every)
    if steps == 0:
        return FitResult(model, None, {}, 0)
    with own_settings():
        run = _Run(model, loss, optimizer, schedule, precision, ema, seed, device)
        run.fixed.update(clip_norm=clip_norm, accumulate=accumulate, precision=precision, ema=ema, seed=seed)
        devices = [run.device] if run.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(run.generator.initial_seed() % 2**31)
            return _train(run, sample, steps, clip_norm, accumulate, evaluate, evaluate_every, log_every, checkpoint,
                          checkpoint_every, resume, progress)  # fmt: skip


def _train(
    run: _Run,
    sample: Callable[[torch.Generator], Any],
    steps: int,
    clip_norm: float | None,
    accumulate: int,
    evaluate: Callable[[Any], dict[str, float]] | None,
    evaluate_every: int,
    log_every: int,
    checkpoint: Path | str | None,
    checkpoint_every: int,
    resume: bool,
    progress: bool,
) -> FitResult:
    history, step = _History(), 0
    if checkpoint is not None and resume and (saved := read_checkpoint(checkpoint)) is not None:
        check_same_run(saved, run.identity())
        history.rows, step = saved["history"], saved["step"]
        if steps < step:
            raise ValueError(f"steps: got {steps}, but {checkpoint} is at step {step}; resume=False begins anew")
        if steps == step:
            warnings.warn(
                f"checkpoint: {checkpoint} is already finished at step {step}, nothing is trained", stacklevel=3
            )
        run.load(saved, sample)
    bar = _progress_bar(run, steps, step, progress)
    run.wrapped.train()
    while step < steps:
        losses = []
        for micro in range(accumulate):
            batch = _to(sample(run.generator), run.device)
            # Gradients of all processes are averaged once a step, with the last batch.
            with nullcontext() if micro == accumulate - 1 else run.accelerator.no_sync(run.wrapped):
                values = run.wrapped(batch)
                run.accelerator.backward(values["loss"] / accumulate)
            losses.append({name: value.detach() for name, value in values.items()})
        norm = run.clip(clip_norm)
        history.hold(losses, norm, run.optimizer.param_groups[0]["lr"])
        run.update()
        step += 1
        measured = bool(evaluate) and (step == steps or (evaluate_every and step % evaluate_every == 0))
        if step % log_every == 0 or step == steps or measured:
            row = history.read(step, run.accelerator)
            bar.set_postfix(loss=f"{row['loss']:.4g}", refresh=False)
            if evaluate is not None and measured:
                row.update(run.evaluate(evaluate))
        bar.update()
        if checkpoint is not None and (step == steps or (checkpoint_every and step % checkpoint_every == 0)):
            if history.held:
                history.read(step, run.accelerator)
            run.save(checkpoint, sample, step, history)
    bar.close()
    return FitResult(run.model, run.ema, history.tensors(), step)


class _LossModule(nn.Module):
    """Model and loss as one module whose forward is the loss.

    This is what Accelerate prepares, so that gradients synchronise also when the loss calls ``model.loss(batch)``
    or uses the model twice.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Losses]):
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Any) -> dict[str, Tensor]:
        values = self._loss(self.model, batch)
        if not isinstance(values, dict):
            return {"loss": values}
        if "loss" not in values:
            raise ValueError(f"loss: got a dict with keys {sorted(values)}, expected a key 'loss' among them")
        return values


class _Run:
    """Everything that a step changes: model, optimizer, schedule, average, generators."""

    def __init__(self, model, loss, optimizer, schedule, precision, ema, seed, device):
        self.accelerator = make_accelerator(precision, device)
        self.device = self.accelerator.device
        self.generator = process_generator(seed, self.accelerator.process_index)
        self.model, self.sharded = model.to(self.device), wants_sharding()
        self.ema = None
        if ema is not None:
            self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
        self.wrapped: nn.Module = _LossModule(model, loss)
        if self.sharded:
            if isinstance(optimizer, Optimizer):
                raise ValueError(
                    "optimizer: got an Optimizer, expected a function that makes one from parameters (FSDP)"
                )
            shard(self.wrapped, self.device)
            if self.ema is not None:
                shard(self.ema, self.device)
        else:
            self.wrapped = self.accelerator.prepare_model(self.wrapped)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizer if isinstance(optimizer, Optimizer) else optimizer(trained)
        if self.accelerator.scaler is not None:
            self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        groups = [{k: v for k, v in plain(g).items() if k != "params"} for g in self.optimizer.param_groups]
        self.fixed = {  # what a checkpoint and the run that goes on from it have in common, beside the parameters
            "optimizer": type(getattr(self.optimizer, "optimizer", self.optimizer)).__name__,
            "options": repr(groups),
            "processes": self.accelerator.num_processes,
            "loss": described(loss),
            "schedule": described(schedule),
            "python": platform.python_version(),
        }
        self.scheduler = make_scheduler(schedule, self.optimizer)

    def clip(self, limit: float | None) -> Tensor:
        """Return the norm of the gradient, after scaling the gradient down to the limit."""
        self.accelerator.unscale_gradients(self.optimizer) if self.accelerator.scaler is not None else None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        whole = getattr(norm, "full_tensor", None)  # of a sharded tensor
        return norm if whole is None else whole()

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if getattr(self.optimizer, "step_was_skipped", False):  # the gradient overflowed at the scaler's last guess
            return
        if self.scheduler is not None:
            self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def evaluate(self, function: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        self.model.eval()
        if self.sharded:
            each_shard(self.wrapped, "unshard")
        try:
            with torch.no_grad():
                return {name: float(value) for name, value in function(self.model).items()}
        finally:
            if self.sharded:
                each_shard(self.wrapped, "reshard")
            self.wrapped.train()

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What has to agree between a checkpoint and the run that goes on from it."""
        shapes = {name.replace("_orig_mod.", ""): list(p.shape) for name, p in self.model.named_parameters()}
        return {"model": shapes, **self.fixed}

    def save(self, folder: Path | str, sample: Any, step: int, history: _History) -> None:
        of_process = {
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "sampler": loadable("sample.state_dict()", sample.state_dict()) if hasattr(sample, "state_dict") else None,
        }
        state = {
            "identity": self.identity(),
            "step": step,
            "history": history.rows,
            "model": full_state(self.model, self.sharded),
            "ema": full_state(self.ema, self.sharded) if self.ema is not None else None,
            "optimizer": full_optimizer_state(self.model, self.optimizer, self.sharded),
            "scheduler": plain(self.scheduler.state_dict()) if self.scheduler is not None else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            "processes": gather_object([of_process]),
        }
        problem = [write_checkpoint(folder, state)] if self.accelerator.is_main_process else [None]
        if self.accelerator.num_processes > 1:
            dist.broadcast_object_list(problem)  # all processes stop together when the main one cannot write
        if problem[0] is not None:
            raise OSError(problem[0])

    def load(self, saved: dict[str, Any], sample: Any) -> None:
        load_state(self.model, saved["model"], self.sharded)
        if self.ema is not None:
            load_state(self.ema, saved["ema"], self.sharded)
        load_optimizer_state(self.model, self.optimizer, saved["optimizer"], self.sharded)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        mine = saved["processes"][self.accelerator.process_index]
        self.generator.set_state(mine["generator"])
        torch.set_rng_state(mine["torch"])
        if mine["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(mine["cuda"], self.device)
        if hasattr(sample, "load_state_dict"):
            sample.load_state_dict(restored(mine["sampler"]))


class _History:
    """Rows of logged numbers, and the losses of the steps since the last row, still on the device."""

    def __init__(self):
        self.rows: list[dict[str, float]] = []
        self.held: list[tuple[list[dict[str, Tensor]], Tensor, float | Tensor]] = []

    def hold(self, losses: list[dict[str, Tensor]], norm: Tensor, lr: float | Tensor) -> None:
        self.held.append((losses, norm, lr.detach().clone() if isinstance(lr, Tensor) else lr))

    def read(self, step: int, accelerator: Accelerator) -> dict[str, float]:
        names = sorted({name for step_losses, *_ in self.held for losses in step_losses for name in losses})
        table, logged = self._table(names)
        if accelerator.num_processes > 1:
            table = cast("Tensor", accelerator.reduce(table, "mean"))
        table = table.double().cpu()  # the one synchronisation with the device
        bad = ~table[:, names.index("loss")].isfinite()
        if bad.any():
            first = step - len(self.held) + 1 + int(bad.nonzero()[0])
            raise FloatingPointError(f"the loss of step {first} is {table[bad, names.index('loss')][0].item()}")
        row = {"step": float(step), "lr": float(self.held[-1][2]), "grad_norm": float(self.held[-1][1])}
        row.update({name: table[logged[:, i], i].mean().item() for i, name in enumerate(names)})
        self.rows.append(row)
        self.held = []
        return row

    def _table(self, names: list[str]) -> tuple[Tensor, Tensor]:
        """Means ``(steps, names)`` over the batches of each step, and where there was one: not all steps log all."""
        logged = torch.tensor([[any(n in losses for losses in h[0]) for n in names] for h in self.held])
        missing = torch.zeros((), device=self.held[0][1].device)
        cells = [[[losses[n].float() for losses in h[0] if n in losses] or [missing] for n in names] for h in self.held]
        return torch.stack([torch.stack([torch.stack(cell).mean() for cell in row]) for row in cells]), logged

    def tensors(self) -> dict[str, Tensor]:
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {n: torch.tensor([r.get(n, math.nan) for r in self.rows], dtype=torch.float64) for n in names}


# --- batches and progress --------------------------------------------------------------------------------------------


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: _to(v, device) for k, v in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to(v, device) for v in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to(v, device) for v in batch)
    return batch


def _progress_bar(run: _Run, steps: int, done: int, progress: bool) -> tqdm:
    in_notebook = "ipykernel" in sys.modules and "IPython" in sys.modules
    shown = progress and run.accelerator.is_main_process and (in_notebook or sys.stderr.isatty())
    return tqdm(total=steps, initial=done, unit="step", disable=not shown, leave=False, dynamic_ncols=True)


# --- arguments --------------------------------------------------------------------------------------------------------


def _check_arguments(steps, accumulate, clip_norm, precision, ema, evaluate, evaluate_every, log_every) -> None:
    for name, value, least in (
        ("steps", steps, 0),
        ("accumulate", accumulate, 1),
        ("log_every", log_every, 1),
        ("evaluate_every", evaluate_every, 0),
    ):
        check_integer(name, value, least)
    if clip_norm is not None:
        check_number("clip_norm", clip_norm, above=0)
    if ema is not None:
        check_number("ema", ema, least=0, below=1)
    check_one_of("precision", precision, ("no", "bf16", "fp16"))
    if evaluate_every and evaluate is None:
        raise ValueError(f"evaluate_every: got {evaluate_every} without evaluate, expected a function of the model")
