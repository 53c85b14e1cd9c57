"""How the operator battery describes a public differentiable function of the library: once, as an `OpInfo`.

An entry names the function, an independent reference in float64, and samples from the inside of its domain. The entries
of a chapter are the list `OPS` of `<part>/ops_<slug>.py`; `test_ops.py` runs the same tests over all that it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jaxtyping
import numpy as np
import torch
from torch import Tensor

ALL_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Sample:
    """One call: tensors with the batch dimension first, all of one floating dtype, and the other arguments.

    `per_row` holds arguments that are tensors with a batch dimension but no floating dtype (targets, masks).
    """

    inputs: tuple[Tensor, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    per_row: Mapping[str, Tensor] = field(default_factory=dict)

    def call(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """The function at this sample, with other tensors in place of the inputs when they are given."""
        return function(*(inputs or self.inputs), **self.kwargs, **self.per_row)

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Sample:
        moved = {name: value.to(device) for name, value in self.per_row.items()}
        return Sample(tuple(x.to(device, dtype) for x in self.inputs), self.kwargs, moved)

    def rows(self, index: int | slice) -> Sample:
        chosen = {name: value[index] for name, value in self.per_row.items()}
        return Sample(tuple(x[index] for x in self.inputs), self.kwargs, chosen)


@dataclass(frozen=True)
class Bad:
    """One call that the library refuses: a good one with some of its arguments changed.

    Attributes:
        function: the library's function, also where the entry's `op` wraps it.
        good: arguments by name that it accepts.
        changes: what is put in their place.
        error: TypeError or ValueError, exactly.
        message: how the message begins, "name: got …" with all that was got.
    """

    function: Callable[..., Any]
    good: Mapping[str, Any]
    changes: Mapping[str, Any]
    error: type[Exception]
    message: str


def spoiled(
    function: Callable[..., Any], good: Mapping[str, Any], *rows: tuple[Mapping[str, Any], type[Exception], str]
) -> Callable[[], list[Bad]]:
    """The bad inputs of one function, from rows of changes, error and message."""
    return lambda: [Bad(function, good, *row) for row in rows]


@dataclass(frozen=True)
class OpInfo:
    """One operator.

    Attributes:
        name: how the tests call it.
        op: the function; the same for every row of the batch.
        reference: the same function of one row, float64 arrays in and out, by another method.
        samples: a few samples in float64 whose inputs have shape (rows, ...) with at least two rows, away from kinks.
        extreme: samples at the edge of the domain (±inf, ties, huge values), where reference and op must still agree
            and no gradient may be NaN.
        any_shape: whether it is elementwise, without a shape to refuse.
        dtypes: supported floating dtypes.
        tolerance: absolute and relative error allowed, in units of the dtype's eps.
        half_tolerance: the same for the half types, where a kernel may round what lies between.
        second_derivative, forward_mode, vmap, compiles: whether the operator claims these.
        autocast: whether `torch.autocast` may change the result, as it should inside of a model.
    """

    name: str
    op: Callable[..., Tensor]
    reference: Callable[..., np.ndarray]
    samples: Callable[[], Iterable[Sample]]
    extreme: Callable[[], Iterable[Sample]] = tuple
    errors: Callable[[], Iterable[Bad]] = tuple
    any_shape: bool = False
    dtypes: tuple[torch.dtype, ...] = ALL_DTYPES
    tolerance: float = 64.0
    half_tolerance: float = 2.0
    second_derivative: bool = True
    forward_mode: bool = True
    vmap: bool = True
    compiles: bool = True
    autocast: bool = False

    def expected(self, sample: Sample) -> Tensor:
        """The reference at each row of a sample, in float64."""
        rows = []
        for i in range(len(sample.inputs[0])):
            row = sample.rows(i)
            arrays = [x.double().numpy() for x in row.inputs]
            rows.append(self.reference(*arrays, **row.kwargs, **{k: v.numpy() for k, v in row.per_row.items()}))
        return torch.from_numpy(np.stack(rows))


@contextmanager
def as_users_call() -> Iterator[None]:
    """Without the runtime type checker of the tests: errors are the library's own, and torch.compile can trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def scores(n: int, spread: float, seed: int, rows: int = 2) -> tuple[Tensor]:
    """Normal draws in float64 of shape (rows, n)."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, n, dtype=torch.float64, generator=generator) * spread,)
