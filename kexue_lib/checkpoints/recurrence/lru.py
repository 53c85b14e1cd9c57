"""Which ingredient of the linear recurrent unit matters: digits read pixel by pixel, at once and after a silence.

Run by ``python -m kexue_lib.checkpoints.recurrence.lru`` with one thread, under half an hour. Each variant's rate is
chosen on two seeds, and what it reaches is measured on five others; runs of one seed share all draws. The variants
that compare the two forms of the eigenvalues run at the other rate too, and beyond the length they are trained on.
Rounding differs between processors and training amplifies it: on another one a run repeats to a few points only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import digits
from kexue_lib.recurrence.block import SequenceBlock, SequenceModel
from kexue_lib.recurrence.lru import LRU, lru_gain

__all__ = [
    "BOTH_RATES",
    "CHOOSING",
    "COMPARING",
    "D_MODEL",
    "LONGER",
    "RATES",
    "TASKS",
    "AngleLRU",
    "DirectLRU",
    "TanhRNN",
    "accuracy",
    "fitted",
    "groups",
    "layer",
    "main",
    "trained",
    "variants",
]

CHOOSING, COMPARING = range(2), range(2, 7)  # seeds
RATES = (2e-3, 6e-3)
D_MODEL, D_STATE = 32, 32  # complex numbers of the state; twice as many real ones where it is real
EPOCHS, BATCH = 4, 50
BOTH_RATES = (
    *(f"ring, {form}, {scale}" for form in ("exponential", "direct") for scale in ("γ", "no γ")),
    *(f"ring, {form}, γ, λ at a tenth" for form in ("exponential", "direct")),
    "ring, exponential, γ, θ itself",
)
LONGER = (0, 64, 1744)  # further steps of silence: 256, 320 and 2000 in all


class Task(NamedTuple):
    """A way to present the digits.

    Attributes:
        silence: steps of zero behind the 64 pixels.
        depth: blocks of the model.
        ring: inner and outer radius of the eigenvalues at the start.
        other: the ring of the other task, a control.
    """

    silence: int
    depth: int
    ring: tuple[float, float]
    other: tuple[float, float]


TASKS = {
    "at once": Task(0, 2, (0.9, 0.999), (0.99, 0.9999)),
    "after a silence": Task(192, 1, (0.99, 0.9999), (0.9, 0.999)),
    "six blocks": Task(0, 6, (0.9, 0.999), (0.99, 0.9999)),
}


class DirectLRU(LRU):
    """Real and imaginary parts of the eigenvalues as parameters: nothing keeps them inside of the circle.

    Args:
        *args: as for :class:`LRU`.
        **kwargs: as for :class:`LRU`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        lam = super().eigenvalues().detach()
        del self.nu_log, self.theta_log
        self.lam_re, self.lam_im = nn.Parameter(lam.real.clone()), nn.Parameter(lam.imag.clone())

    def eigenvalues(self) -> Tensor:
        """Return the eigenvalues."""
        return torch.complex(self.lam_re, self.lam_im)


class AngleLRU(LRU):
    """The angle itself as parameter instead of its logarithm; the size stays exponential.

    Args:
        *args: as for :class:`LRU`.
        **kwargs: as for :class:`LRU`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        theta = self.theta_log.detach().exp()
        del self.theta_log
        self.theta = nn.Parameter(theta)

    def eigenvalues(self) -> Tensor:
        """Return the eigenvalues."""
        return torch.exp(torch.complex(-self.nu_log.exp(), self.theta))


class TanhRNN(nn.Module):
    """PyTorch's tanh RNN and a linear output; as a layer of whole sequences only.

    Args:
        d_model: channels of input and output.
        d_state: units.
    """

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(d_model, d_state, batch_first=True)
        self.out = nn.Linear(d_state, d_model)

    def forward(self, u: Tensor) -> Tensor:
        """Map (batch, L, d_model) to the same shape."""
        return self.out(self.rnn(u)[0])


def layer(
    ring: tuple[float, float],
    generator: torch.Generator,
    *,
    kind: type[LRU] = LRU,
    gamma="each",
    rate=1.0,
    fixed="",
    real=False,
) -> LRU:
    """Return a layer without some ingredients.

    Args:
        ring: inner and outer radius at the start.
        generator: of all draws, the same ones for all layers with complex states.
        kind: how the eigenvalues are parametrised.
        gamma: at the start ``"each"`` √(1-r²), ``"one"`` a common factor for the same mean square state, ``"none"``.
        rate: of the eigenvalues, as a multiple of that of all other parameters; 0 keeps them as they are.
        fixed: name of a parameter that is not trained.
        real: positive eigenvalues, twice as many.
    """
    size = 2 * D_STATE if real else D_STATE
    made = kind(D_MODEL, size, r_min=ring[0], r_max=ring[1], real=real, generator=generator)
    with torch.no_grad():
        if gamma == "one":
            made.gamma_log.fill_(-math.log(lru_gain(made.eigenvalues().abs()).mean()) / 2)
        elif gamma == "none":
            made.gamma_log.zero_()
    if fixed:
        made.get_parameter(fixed).requires_grad_(False)
    made.eigenvalue_rate = rate
    return made


def variants(task: Task) -> dict[str, Callable[[torch.Generator], nn.Module]]:
    """Return makers of layers by name: all combinations of ring, parametrisation and γ, and the controls.

    Args:
        task: whose rings they start on.
    """
    made: dict[str, Callable[[torch.Generator], nn.Module]] = {}

    def add(name: str, ring: tuple[float, float], **options) -> None:
        made[name] = lambda generator: layer(ring, generator, **options)

    disk = (0.0, task.ring[1])
    for where, ring in (("ring", task.ring), ("disk", disk)):
        for how, kind in (("exponential", LRU), ("direct", DirectLRU)):
            for scale, gamma in (("γ", "each"), ("no γ", "none")):
                add(f"{where}, {how}, {scale}", ring, kind=kind, gamma=gamma)
    add("ring, exponential, one γ", task.ring, gamma="one")
    add("ring, exponential, γ, λ frozen", task.ring, rate=0.0)
    add("ring, exponential, γ, θ frozen", task.ring, fixed="theta_log")
    add("ring, exponential, γ, ν frozen", task.ring, fixed="nu_log")
    add("ring, exponential, γ, λ at a tenth", task.ring, rate=0.1)
    add("ring, direct, γ, λ at a tenth", task.ring, kind=DirectLRU, rate=0.1)
    add("ring, exponential, no γ, λ at a tenth", task.ring, gamma="none", rate=0.1)
    add("disk, exponential, γ, λ at a tenth", disk, rate=0.1)
    add("ring, exponential, γ, θ itself", task.ring, kind=AngleLRU)
    add("other ring, exponential, γ", task.other)
    add("ring, positive λ, γ", task.ring, real=True)
    add("disk, positive λ, γ", disk, real=True)
    made["tanh RNN"] = lambda generator: TanhRNN(D_MODEL, 2 * D_STATE)
    return made


def groups(model: nn.Module, rate: float, factor: float) -> list[dict]:
    """Return two parameter groups: eigenvalues at ``factor`` times the rate, all others at the rate.

    Args:
        model: with layers of the kinds above.
        rate: of the others.
        factor: of the eigenvalues.
    """
    is_eigenvalue = lambda name: name.rpartition(".")[-1] in ("nu_log", "theta_log", "theta", "lam_re", "lam_im")
    named = list(model.named_parameters())
    slow, rest = ([p for name, p in named if is_eigenvalue(name) == wanted] for wanted in (True, False))
    return [{"params": slow, "lr": factor * rate}, {"params": rest, "lr": rate}]


def fitted(
    make: Callable[[torch.Generator], nn.Module], task: Task, rate: float, seed: int
) -> tuple[nn.Module, list[nn.Module]] | None:
    """Return a trained model and its layers, None where the loss is not finite.

    Args:
        make: a layer from a generator.
        task: silence and depth.
        rate: of AdamW.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    layers = [make(generator) for _ in range(task.depth)]
    draw = torch.Generator().manual_seed(seed + 1000)  # the rest alike, whatever the layers have drawn
    blocks = [SequenceBlock(x, D_MODEL, generator=draw) for x in layers]
    model = SequenceModel(blocks, d_in=1, d_out=10, readout="last", generator=draw)
    optimizer = torch.optim.AdamW(groups(model, rate, getattr(layers[0], "eigenvalue_rate", 1.0)))
    data = digits(scale="symmetric")
    for _ in range(EPOCHS):
        for index in torch.randperm(len(data.x_train), generator=draw).split(BATCH):
            sequences = F.pad(data.x_train[index], (0, task.silence))[..., None]
            loss = F.cross_entropy(model(sequences), data.y_train[index])
            if not loss.isfinite():
                return None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model, layers


@torch.no_grad()
def accuracy(model: nn.Module, silence: int) -> float:
    """Return the share of test digits that are recognised after a silence; logits that are not finite are wrong.

    Args:
        model: from sequences to logits.
        silence: steps of zero behind the pixels.
    """
    data = digits(scale="symmetric")
    logits = model(F.pad(data.x_test, (0, silence))[..., None])
    return ((logits.argmax(-1) == data.y_test) & logits.isfinite().all(-1)).double().mean().item()


def trained(make: Callable[[torch.Generator], nn.Module], task: Task, rate: float, seed: int) -> tuple[float, ...]:
    """Return test accuracy, the largest and the smallest |λ| after training; accuracy 0 where the loss is not finite.

    Args:
        make: a layer from a generator.
        task: silence and depth.
        rate: of AdamW.
        seed: of weights and batches.
    """
    found = fitted(make, task, rate, seed)
    if found is None:
        return 0.0, math.inf, math.inf
    model, layers = found
    sizes = [x.eigenvalues().detach().abs() for x in layers if isinstance(x, LRU)]
    sizes = torch.cat(sizes) if sizes else torch.zeros(1)
    return accuracy(model, task.silence), sizes.max().item(), sizes.min().item()


def add_other_rate(rows: dict[str, dict], task: Task) -> None:
    """Add the accuracies at the rate that was not chosen.

    Args:
        rows: of the task, by variant.
        task: silence and depth.
    """
    made = variants(task)
    for name in BOTH_RATES:
        (other,) = set(RATES) - {rows[name]["rate"]}
        rows[name]["other rate"] = [trained(made[name], task, other, seed)[0] for seed in COMPARING]


def longer(rows: dict[str, dict], task: Task, seeds: range = COMPARING[:3]) -> dict[str, list[list[float]]]:
    """Return accuracies with further steps of silence, by variant, seed and number of steps.

    Args:
        rows: of the task, by variant, whose rates are taken.
        task: silence and depth.
        seeds: of weights and batches.
    """
    made, found = variants(task), {}
    for name in BOTH_RATES:
        if "no γ" in name:
            continue
        models = [fitted(made[name], task, rows[name]["rate"], seed) for seed in seeds]
        found[name] = [
            [0.0 if pair is None else accuracy(pair[0], task.silence + more) for more in LONGER] for pair in models
        ]
    return found


def main() -> None:
    """Run all variants on both tasks, three of them in six blocks, and store the accuracies.

    One thread; under half an hour.
    """
    torch.set_num_threads(1)
    content: dict[str, dict[str, dict]] = {}
    for name, task in TASKS.items():
        rows, deep = {}, task.depth > 2
        content[name] = rows
        for variant, make in variants(task).items():
            if deep and variant not in ("ring, exponential, γ", "ring, exponential, one γ", "ring, exponential, no γ"):
                continue
            sweep = {rate: [trained(make, task, rate, seed)[0] for seed in CHOOSING] for rate in RATES}
            rate = max(sweep, key=lambda rate: sum(sweep[rate]))
            runs = [trained(make, task, rate, seed) for seed in COMPARING]
            finite = [run for run in runs if math.isfinite(run[1])]
            rows[variant] = {
                "rate": rate,
                "sweep": list(sweep.values()),
                "accuracy": [run[0] for run in runs],
                "largest": max((run[1] for run in finite), default=None),
                "smallest": min((run[2] for run in finite), default=None),
                "not finite": len(runs) - len(finite),
            }
            print(name, variant, rounded(rows[variant], 4), flush=True)
        if not deep:
            add_other_rate(rows, task)
    silence = "after a silence"
    content["longer"] = longer(content[silence], TASKS[silence])
    save(
        "recurrence/lru",
        rounded(content),
        made_with={"seed": [0, 6], "steps": EPOCHS * 1400 // BATCH, "d_model": D_MODEL, "d_state": D_STATE},
    )


if __name__ == "__main__":
    main()
