"""Multitask sparse parity: tasks whose frequencies follow a power law, networks that learn them, and their traces.

Source: Michaud, Liu, Girit and Tegmark, "The Quantization Model of Neural Scaling", arXiv 2303.13506, section 3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kexue_lib._arguments import check_integer, check_number
from kexue_lib.optimization.scaling_law._quanta import zipf_frequencies

_TEST_POINTS = 256  # for each task


class MultitaskSparseParity:
    """Tasks that all read the same random bits; task t asks for the parity of its own k of them.

    A sample is (task, bits, label): the task is drawn with probability ∝ t^{−γ−1}, t = 1, 2, …, the bits are fair
    coins, and label = (Σ_{i in subset of the task} bitsᵢ) mod 2. Assign `frequencies` for another law.

    Args:
        n_tasks: number of tasks, at most C(n_bits, k).
        n_bits: number of bits of a sample.
        k: size of the subsets, 1 … n_bits.
        gamma: exponent γ > 0 of the frequencies.
        generator: draws the subsets; default seed 0.
        device: where samples are drawn.

    Attributes:
        subsets: ``(n_tasks, k)``, all different.
        frequencies: ``(n_tasks,)`` float64, sum 1.

    Raises:
        TypeError: n_tasks, n_bits or k is no integer, gamma no number.
        ValueError: one of them outside its range.

    Source: arXiv 2303.13506, section 3.1.

    >>> data = MultitaskSparseParity(4, 6, 2, gamma=0.5)
    >>> task, bits, label = data.sample(5)
    >>> bool((bits.gather(1, data.subsets[task]).sum(1) % 2 == label).all())
    True
    """

    def __init__(
        self,
        n_tasks: int,
        n_bits: int,
        k: int,
        gamma: float | int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ):
        check_integer("n_bits", n_bits, 1)
        check_integer("k", k, 1, n_bits, most_is="n_bits")
        check_integer("n_tasks", n_tasks, 1, math.comb(n_bits, k), most_is="C(n_bits, k)")
        self.n_tasks, self.n_bits, self.k = n_tasks, n_bits, k
        generator = generator or torch.Generator().manual_seed(0)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        ranks = random.Random(seed).sample(range(math.comb(n_bits, k)), n_tasks)
        self.subsets = torch.tensor([_unranked(rank, n_bits, k) for rank in ranks], device=device)
        self.frequencies = zipf_frequencies(n_tasks, gamma).to(device)

    def sample(
        self, m: int, *, task: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Integer[Tensor, "m"], Integer[Tensor, "m n_bits"], Integer[Tensor, "m"]]:
        """Return m samples (task, bits, label) without a loop over tasks.

        Args:
            m: number of samples.
            task: this task only.
            generator: of the draws.

        Raises:
            TypeError, ValueError: m is no integer of at least 0, task none of the tasks.

        Cost: O(m (log n_tasks + n_bits)).
        """
        check_integer("m", m, 0)
        device = self.subsets.device
        if task is None:
            # Binary search in the cumulated frequencies: faster than torch.multinomial for many samples of few tasks.
            uniform = torch.rand(m, generator=generator, device=device, dtype=torch.float64)
            chosen = torch.searchsorted(self.frequencies.cumsum(0), uniform).clamp_(max=self.n_tasks - 1)
        else:
            check_integer("task", task, 0, self.n_tasks - 1, most_is="n_tasks − 1")
            chosen = torch.full((m,), task, device=device)
        # One random byte holds eight fair coins; the table writes them out, eight bytes at once.
        coins = torch.randint(256, (m, -(-self.n_bits // 8)), generator=generator, device=device, dtype=torch.uint8)
        table = (torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)) & 1
        eight = table.to(torch.uint8).view(torch.int64)[:, 0]
        bits = eight[coins.int()].view(torch.uint8)[:, : self.n_bits]
        label = bits.gather(1, self.subsets[chosen]).sum(1, dtype=torch.uint8) & 1
        return chosen, bits, label

    def encode(
        self, task: Integer[Tensor, "m"], bits: Integer[Tensor, "m n_bits"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "m inputs"]:
        """Return the dense input of the paper's network: one-hot control bits, then the bits; (m, n_tasks + n_bits)."""
        control = nn.functional.one_hot(task, self.n_tasks)
        return torch.cat([control.to(dtype), bits.to(dtype)], 1)


class ParityEnsemble(nn.Module):
    """One-hidden-layer networks of several widths that read the same batch, in one product of matrices.

    logit = Σ_h vₕ relu(E[task, h] + Σᵢ Wᵢₕ (2 bitsᵢ − 1)) + c for each network; E is looked up, so that the first layer
    costs n_bits columns and not n_tasks + n_bits. Trained on the sum of their losses with an optimizer that treats each
    entry by itself (Adam, SGD), the networks do not influence one another.

    Args:
        n_tasks: rows of E.
        n_bits: rows of W.
        widths: hidden units of each network.
        generator: of the initial weights; default seed 0.

    Raises:
        TypeError, ValueError: a size that is no integer of at least 1, or no width.

    >>> ParityEnsemble(4, 6, [2, 8])(torch.tensor([0, 3, 1]), torch.ones(3, 6, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    mask: Tensor

    def __init__(self, n_tasks: int, n_bits: int, widths: Sequence[int], *, generator: torch.Generator | None = None):
        super().__init__()
        check_integer("n_tasks", n_tasks, 1)
        check_integer("n_bits", n_bits, 1)
        for width in widths:
            check_integer("widths", width, 1)
        if not len(widths):
            raise ValueError("widths: got none, expected at least one")
        generator = generator or torch.Generator().manual_seed(0)
        total, size = sum(widths), torch.tensor(widths)
        normal = lambda *shape: torch.randn(*shape, generator=generator)
        self.task_bias = nn.Parameter(normal(n_tasks, total) / math.sqrt(n_bits))
        self.bit_weight = nn.Parameter(normal(n_bits, total) / math.sqrt(n_bits))
        owner = torch.arange(len(widths)).repeat_interleave(size)
        self.register_buffer("mask", nn.functional.one_hot(owner, len(widths)).float(), persistent=False)
        self.read_out = nn.Parameter(normal(total) / size.float().sqrt()[owner])
        self.offset = nn.Parameter(torch.zeros(len(widths)))

    def forward(self, task: Integer[Tensor, "m"], bits: Integer[Tensor, "m n_bits"]) -> Float[Tensor, "n_models m"]:
        """Return the logit of label 1 from each network."""
        signs = bits.to(self.bit_weight.dtype) * 2 - 1
        hidden = (nn.functional.embedding(task, self.task_bias) + signs @ self.bit_weight).relu()
        return (hidden @ (self.read_out[:, None] * self.mask) + self.offset).T


class ParityMLP(ParityEnsemble):
    """One network of :class:`ParityEnsemble`.

    Args:
        n_tasks: number of tasks.
        n_bits: number of bits.
        width: hidden units.
        generator: of the initial weights; default seed 0.

    >>> ParityMLP(4, 6, 8)(torch.tensor([0, 3, 1]), torch.ones(3, 6, dtype=torch.uint8)).shape
    torch.Size([3])
    """

    def __init__(self, n_tasks: int, n_bits: int, width: int, *, generator: torch.Generator | None = None):
        super().__init__(n_tasks, n_bits, [width], generator=generator)

    def forward(self, task: Integer[Tensor, "m"], bits: Integer[Tensor, "m n_bits"]) -> Float[Tensor, "m"]:
        """Return the logit of label 1."""
        return super().forward(task, bits)[0]


class ParityTrace(NamedTuple):
    """Test losses in bits along a run: ``steps (S,)``, ``task_loss (S, …, n_tasks)``, ``mean_loss (S, …)``.

    … is empty for one network and n_models for an ensemble; mean_loss weighs the tasks with their frequencies.
    """

    steps: Float[Tensor, "S"]
    task_loss: Float[Tensor, "S *models n_tasks"]
    mean_loss: Float[Tensor, "S *models"]


def train_parity(
    dataset: MultitaskSparseParity,
    model: ParityEnsemble,
    *,
    steps: int,
    batch_size: int,
    lr: float | int = 1e-2,
    D: int | None = None,
    log_every: int = 40,
    generator: torch.Generator | None = None,
) -> ParityTrace:
    """Train with Adam on cross entropy and record the test loss of every task.

    Args:
        dataset: the tasks.
        model: trained in place.
        steps: of the optimizer.
        batch_size: samples of a step.
        lr: learning rate of Adam.
        D: train on D fixed samples, drawn once, by random batches; None draws fresh samples at every step.
        log_every: steps between tests on 256 fresh points of each task, the same points at each test.
        generator: of test points, fixed samples and batches; default seed 0.

    Returns:
        ``ParityTrace``; a chance guess costs 1 bit.

    Raises:
        TypeError, ValueError: steps, batch_size, D or log_every no integer of at least 1, lr not above 0.

    Cost: about 3 ms a step at batch 1024 and width 128 on one CPU core, and the tests.
    """
    from kexue_lib.training import fit  # needs Accelerate, which nothing else here does

    sizes = {"steps": steps, "batch_size": batch_size, "log_every": log_every, "D": 1 if D is None else D}
    for name, value in sizes.items():
        check_integer(name, value, 1)
    check_number("lr", lr, above=0, below=math.inf)
    generator = generator or torch.Generator().manual_seed(0)
    tasks, bits, labels = _test_points(dataset, generator)
    fixed = None if D is None else dataset.sample(D, generator=generator)
    found: list[Tensor] = []

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return _bits_lost(network(batch[0], batch[1]), batch[2]).mean(-1).sum()

    def draw(source: torch.Generator) -> tuple[Tensor, ...]:
        if fixed is None or D is None:
            return dataset.sample(batch_size, generator=source)
        chosen = torch.randint(D, (batch_size,), generator=source)
        return tuple(part[chosen] for part in fixed)

    def test(network: nn.Module) -> dict[str, float]:
        lost = _bits_lost(network(tasks, bits), labels).unflatten(-1, (dataset.n_tasks, -1)).double().mean(-1)
        found.append(lost)
        return {"tested": 1.0}

    seed = int(torch.randint(2**31, (), generator=generator))
    adam = lambda parameters: torch.optim.Adam(parameters, lr=lr)
    history = fit(model, loss, draw, optimizer=adam, steps=steps, evaluate=test, evaluate_every=log_every,
                  log_every=log_every, seed=seed, device=dataset.subsets.device, progress=False).history  # fmt: skip
    task_loss = torch.stack(found)
    when = history["step"][history["tested"].isfinite()]
    return ParityTrace(when, task_loss, task_loss @ dataset.frequencies)


def steps_to_learn(trace: ParityTrace, threshold: float | int = 0.3) -> Float[Tensor, "*models n_tasks"]:
    """Return the first recorded step at which each task's loss lies below a threshold; NaN if it never does.

    Args:
        trace: of :func:`train_parity`.
        threshold: in bits, in (0, 1).

    Raises:
        TypeError, ValueError: threshold is no number in (0, 1).

    >>> trace = ParityTrace(torch.tensor([1.0, 2.0]), torch.tensor([[0.9, 0.9], [0.1, 0.9]]), torch.ones(2))
    >>> steps_to_learn(trace)
    tensor([2., nan])
    """
    check_number("threshold", threshold, above=0, below=1)
    learned = trace.task_loss < threshold
    first = trace.steps[learned.int().argmax(0)]
    return torch.where(learned.any(0), first, math.nan)


def _bits_lost(logit: Tensor, label: Tensor) -> Tensor:
    target = label.to(logit.dtype).expand_as(logit)
    return binary_cross_entropy_with_logits(logit, target, reduction="none") / math.log(2)


def _test_points(dataset: MultitaskSparseParity, generator: torch.Generator) -> tuple[Tensor, ...]:
    parts = [dataset.sample(_TEST_POINTS, task=task, generator=generator) for task in range(dataset.n_tasks)]
    return tuple(torch.cat(part) for part in zip(*parts))


def _unranked(rank: int, n: int, k: int) -> list[int]:
    """The k-subset of 0 … n − 1 with this rank in the combinatorial number system, largest element first."""
    chosen = []
    for size in range(k, 0, -1):
        n -= 1
        while math.comb(n, size) > rank:
            n -= 1
        rank -= math.comb(n, size)
        chosen.append(n)
    return chosen
