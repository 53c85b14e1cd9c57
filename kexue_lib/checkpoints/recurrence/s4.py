"""What the structure of the state space is worth: delays of white noise, and digits read pixel by pixel.

Run by ``python -m kexue_lib.checkpoints.recurrence.s4`` with one thread, about fourteen minutes. Each layer's rate is
chosen on two seeds, and what it reaches is measured on others; runs of one seed share all data. The digits models are
also run at two and four times the rate at which they were trained, each pixel being held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import digits
from kexue_lib.recurrence.block import SequenceBlock, SequenceModel
from kexue_lib.recurrence.lru import LRU
from kexue_lib.recurrence.s4 import S4, S4D

__all__ = [
    "CHOOSING",
    "COMPARING",
    "DELAY",
    "DIGITS",
    "LAYERS",
    "LONG",
    "SHORT",
    "delay",
    "main",
    "make",
    "read_digits",
]

CHOOSING, COMPARING = range(2), range(2, 7)  # seeds
DELAY = {"channels": 8, "d_state": 64, "batch": 8, "rates": (1e-2, 3e-2, 1e-1)}
SHORT, LONG = (50, 256, 400), (300, 1024, 600)  # delay, length and training steps
DIGITS = {"channels": 32, "d_state": 64, "epochs": 6, "batch": 50, "rates": (2e-3, 6e-3, 2e-2)}
LAYERS = (
    "S4",
    "S4D-Legs",
    "S4D-Legs, bilinear",
    "S4D-Inv",
    "S4D-Lin",
    "lin, positions drawn",
    "S4D, unstructured",
    "LRU",
)
_READERS = ("S4", "S4D-Legs", "S4D-Legs, bilinear", "S4D-Lin", "S4D, unstructured", "LRU")


def make(name: str, d_model: int, d_state: int, length: int, generator: torch.Generator) -> nn.Module:
    """Return a layer of about the same number of parameters whatever its name.

    Args:
        name: one of ``LAYERS``. "lin, positions drawn" has frequencies uniform over the range of S4D-Lin; "S4D,
            unstructured" normal frequencies and log-normal decays, both of order 1.
        d_model: channels.
        d_state: real state of each channel.
        length: of the longest input.
        generator: of all draws.
    """
    if name == "S4":
        return S4(d_model, d_state, l_max=length, generator=generator)
    kind = "legs" if name.startswith("S4D-Legs") else "inv" if name == "S4D-Inv" else "lin"
    method = "bilinear" if name.endswith("bilinear") else "zoh"
    layer = S4D(d_model, d_state, kind=kind, method=method, generator=generator)
    if name == "LRU":
        wanted = sum(p.numel() for p in layer.parameters())
        return LRU(d_model, round(wanted / (4 * d_model + 3)), generator=generator)
    with torch.no_grad():
        if name == "lin, positions drawn":
            layer.frequency.uniform_(0, math.pi * (d_state // 2 - 1), generator=generator)
        elif name == "S4D, unstructured":
            layer.frequency.normal_(generator=generator).abs_()
            layer.log_decay.normal_(generator=generator)
    return layer


def delay(name: str, rate: float, seed: int, task: tuple[int, int, int] = SHORT) -> float:
    """Return the mean square error of a delayed white noise after training; the noise has 1.

    Args:
        name: one of ``LAYERS``, between two linear maps and with no nonlinearity.
        rate: of Adam at the start, falling linearly to 0.
        seed: of weights and noise.
        task: delay, length of the sequences, training steps.
    """
    H, (lag, length, steps) = DELAY["channels"], task
    generator = torch.Generator().manual_seed(seed)
    layer = make(name, H, DELAY["d_state"], length, generator)
    draw = torch.Generator().manual_seed(seed + 1000)
    into, out = (nn.Parameter(torch.randn(H, generator=draw) / scale) for scale in (1, H))
    optimizer = torch.optim.Adam([into, out, *layer.parameters()], rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)

    def error(batch: int) -> Tensor:
        u = torch.randn(batch, length, generator=draw)
        y = layer(u[..., None] * into) @ out
        return (y[:, lag:] - u[:, :-lag]).square().mean()

    for _ in range(steps):
        loss = error(DELAY["batch"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return error(100).item()


def read_digits(name: str, rate: float, seed: int) -> dict[str, float]:
    """Return test accuracy at the trained rate, and at twice and four times of it with the steps scaled and not.

    Args:
        name: one of ``LAYERS``, in two blocks.
        rate: of Adam at the start, falling linearly to 0.
        seed: of weights and batches.
    """
    H = DIGITS["channels"]
    generator, draw = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1000)
    layers = [make(name, H, DIGITS["d_state"], 64, generator) for _ in range(2)]
    blocks = [SequenceBlock(layer, H, generator=draw) for layer in layers]
    model = SequenceModel(blocks, d_in=1, d_out=10, readout="last", generator=draw)
    data = digits(scale="symmetric")
    x, y = data.x_train[..., None], data.y_train
    steps = DIGITS["epochs"] * math.ceil(len(x) / DIGITS["batch"])
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(DIGITS["epochs"]):
        for index in torch.randperm(len(x), generator=draw).split(DIGITS["batch"]):
            loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    test = data.x_test[..., None]
    accuracy = lambda u: (model(u).argmax(-1) == data.y_test).double().mean().item()
    with torch.no_grad():
        found = {"1": accuracy(test)}
        for factor in (2, 4):
            held = test.repeat_interleave(factor, 1)
            for how, scaled in (("scaled", float(factor)), ("unchanged", 1.0)):
                if isinstance(layers[0], LRU) or (name == "S4" and how == "unchanged"):
                    continue  # no step to scale; an input longer than l_max
                for block, layer in zip(blocks, layers, strict=True):
                    block.layer = layer.resampled(scaled)
                found[f"{factor}, {how}"] = accuracy(held)
    return found


def compared(run: Callable, names: Iterable[str], rates: tuple[float, ...], score: Callable) -> dict[str, dict]:
    """Return for each layer the rate with the best mean score over ``CHOOSING`` and the runs of ``COMPARING``.

    Args:
        run: of a name, a rate and a seed.
        names: of the layers.
        rates: to choose from.
        score: of what ``run`` returns; more is better.
    """
    found = {}
    for name in names:
        sweep = {rate: [run(name, rate, seed) for seed in CHOOSING] for rate in rates}
        rate = max(sweep, key=lambda rate: sum(map(score, sweep[rate])))
        found[name] = {"rate": rate, "sweep": list(sweep.values())}
        found[name]["runs"] = [run(name, rate, seed) for seed in COMPARING]
        print(name, rounded(found[name], 4), flush=True)
    return found


def main() -> None:
    """Run both tasks and store errors and accuracies.

    One thread; about fourteen minutes.
    """
    torch.set_num_threads(1)
    content = {
        "delay": compared(delay, LAYERS, DELAY["rates"], lambda error: -math.log(error)),
        "digits": compared(read_digits, _READERS, DIGITS["rates"], lambda found: found["1"]),
    }
    # The longer delay at the rates that were best for the shorter one.
    rates = {name: content["delay"][name]["rate"] for name in _READERS}
    content["long delay"] = {n: {"runs": [delay(n, rates[n], seed, LONG) for seed in COMPARING]} for n in _READERS}
    made_with = {"seed": [0, 6], "steps": [SHORT[2], LONG[2]], "epochs": DIGITS["epochs"]}
    save("recurrence/s4", rounded(content), made_with=made_with)


if __name__ == "__main__":
    main()
