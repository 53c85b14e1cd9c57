"""Small networks on noisy digits: schedules, amounts of decay, and how far an update points to where training ends.

Run by ``python -m kexue_lib.checkpoints.optimization.amos_recipes`` with one thread, about three quarters of an
hour. Every run is stored when it is done, and runs that are stored are not repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from kexue_lib.checkpoints import load, names, rounded, save
from kexue_lib.data import digits
from kexue_lib.mlp import mlp
from kexue_lib.optimization.amos_recipes import Amos, RelativeUpdate, decay_factor, kappa_from_half_life
from kexue_lib.training import fit, warmup_cosine, warmup_linear

__all__ = [
    "EVERY",
    "HORIZONS",
    "OPTIMIZERS",
    "STEPS",
    "best",
    "main",
    "network",
    "noisy_batch",
    "progress",
    "run",
    "runs",
    "test_loss",
]

STEPS, EVERY, BATCH, FLIPPED, NOISE = 3200, 100, 64, 0.3, 0.5
HORIZONS = (200, 400, 800, 1600, 3200)
SHOWN = (100, *HORIZONS)
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
HALF_LIVES = (10, 30, 100, 300, 1000)
TUNING, TESTING = (0, 1), (10, 11, 12, 13, 14, 15)
DECAYS = (0.0, 0.25, 1.0, 4.0, 16.0, 64.0)
BLOCK = 100
DIVERGED = 1000.0
OPTIMIZERS = (
    ("AdamW", "constant"),
    ("AdamW", "linear"),
    ("AdamW", "inverse_square"),
    ("Amos, all", "constant"),
    ("Amos, all", "linear"),
    ("Amos, fan_in", "constant"),
    ("Amos, none", "constant"),
)
SHORT = 800
NAME = "optimization/amos_recipes"


@lru_cache(maxsize=1)
def _data() -> Any:
    return digits(scale="standard")


def network(seed: int) -> nn.Sequential:
    """Return the network 64-128-128-10.

    Args:
        seed: of its weights.
    """
    return mlp([64, 128, 128, 10], generator=torch.Generator().manual_seed(seed))


def noisy_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return 64 training digits with fresh noise on the pixels and 30 % of the labels redrawn, afresh every time.

    Args:
        generator: source of randomness.
    """
    data = _data()
    chosen = torch.randint(len(data.x_train), (BATCH,), generator=generator)
    x = data.x_train[chosen] + NOISE * torch.randn(BATCH, 64, generator=generator)
    flipped = torch.rand(BATCH, generator=generator) < FLIPPED
    return x, torch.where(flipped, torch.randint(10, (BATCH,), generator=generator), data.y_train[chosen])


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of a batch.

    Args:
        model: network.
        batch: pixels and labels.
    """
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_loss(model: nn.Module) -> float:
    """Return the loss on unseen digits, in expectation over the redrawn labels, above the entropy of the labels.

    Args:
        model: network.
    """
    data = _data()
    labels = (1 - FLIPPED) * nn.functional.one_hot(data.y_test, 10) + FLIPPED / 10
    with torch.no_grad():
        loss = -(labels * model(data.x_test).log_softmax(-1)).sum(-1).mean().item()
    return loss + torch.special.xlogy(labels, labels).sum(-1).mean().item()


def factor_of(schedule: str, horizon: int, half_life: int | None) -> Callable[[int], float]:
    """Return a schedule as a function of the step.

    Args:
        schedule: ``"constant"``, ``"linear"``, ``"cosine"``, ``"inverse_time"`` or ``"inverse_square"``.
        horizon: steps of the run; only linear and cosine know it.
        half_life: of the last two.
    """
    if schedule == "constant":
        return lambda t: 1.0
    if schedule in ("linear", "cosine"):
        return {"linear": warmup_linear, "cosine": warmup_cosine}[schedule](horizon)
    kappa = kappa_from_half_life(float(half_life), schedule)
    return lambda t: decay_factor(float(t), kappa, schedule).item()


def run(
    schedule: str,
    rate: float,
    seed: int,
    *,
    horizon: int = STEPS,
    half_life: int | None = None,
    decay: float | str = 1.0,
    optimizer: str = "relative",
) -> list[float]:
    """Return the test loss of one training after the steps of ``SHOWN``, as far as it goes; ``DIVERGED`` if it is NaN.

    Args:
        schedule: of :func:`factor_of`, for the learning rate and the decay together.
        rate: α₀ of the relative update, ξ of Amos, η of AdamW.
        seed: of weights and batches.
        horizon: steps.
        half_life: of the schedule, if it has one.
        decay: as a multiple of the recipe's α₀²/2 (relative update) or of 0.01 (AdamW); ``"cancelling"``: for every
            matrix what :func:`cancelling` says.
        optimizer: of ``OPTIMIZERS``.
    """
    make = {
        "relative": lambda p: _with_decay(p, rate, decay),
        "AdamW": lambda p: torch.optim.AdamW(p, rate, weight_decay=0.01 * float(decay)),
    }
    for reduce in ("all", "fan_in", "none"):
        make[f"Amos, {reduce}"] = lambda p, reduce=reduce: Amos(p, rate, momentum=0.9, reduce=reduce)
    try:
        result = fit(
            network(seed),
            cross_entropy,
            noisy_batch,
            optimizer=make[optimizer],
            schedule=factor_of(schedule, horizon, half_life),
            steps=horizon,
            evaluate=lambda model: {"test": test_loss(model)},
            evaluate_every=EVERY,
            log_every=EVERY,
            seed=seed,
            progress=False,
        )
    except FloatingPointError:  # diverged
        return [DIVERGED for n in SHOWN if n <= horizon]
    return [result.history["test"][n // EVERY - 1].item() for n in SHOWN if n <= horizon]


def cancelling(stages: list[dict[str, list]]) -> Tensor:
    """Return the multiple of α₀²/2 with which decay cancels α²‖u‖², 0 where q < 0: ``[matrix][block]``.

    Args:
        stages: what :func:`progress` measured, one for each seed.
    """
    mean = lambda name: torch.tensor([x[name] for x in stages], dtype=torch.float64)
    first, last, cosine = mean("norms").unbind(-1)
    way = 1 + (last / first) ** 2 - 2 * last / first * cosine  # ‖ε₀‖² / kσ²
    share = (mean("q") * mean("error") * way[..., None]).mean(0)
    return torch.where(share > 0, 1 / share, 0.0)


def _with_decay(params: Any, rate: float, decay: float | str) -> RelativeUpdate:
    inverse = lambda multiple: 1 / multiple if multiple else math.inf
    if decay != "cancelling":
        return RelativeUpdate(params, rate, q=inverse(decay))
    own = list(params)
    table = cancelling([*load(NAME)[0]["progress"].values()]).tolist()
    matrices = [{"params": [p]} for p in own if p.ndim == 2]
    optimizer = RelativeUpdate([*matrices, {"params": [p for p in own if p.ndim < 2]}], rate)
    done = [0]

    def follow(*_: Any) -> None:
        for group, row in zip(optimizer.param_groups, table):
            group["q"] = inverse(row[done[0] // BLOCK])
        done[0] += 1

    optimizer.register_step_pre_hook(follow)
    return optimizer


def _schedules() -> Iterator[dict[str, Any]]:
    for rate in (1e-3, *RATES):
        yield {"schedule": "constant", "rate": rate}
    for rate in RATES:
        for schedule in ("linear", "cosine"):
            for horizon in HORIZONS:
                yield {"schedule": schedule, "rate": rate, "horizon": horizon}
    for rate in (*RATES, 0.3):
        for schedule in ("inverse_time", "inverse_square"):
            for half_life in HALF_LIVES:
                yield {"schedule": schedule, "rate": rate, "half_life": half_life}
    for optimizer, schedule in OPTIMIZERS:
        setting = {"schedule": schedule, "optimizer": optimizer}
        if schedule == "inverse_square":
            for rate in RATES[:3]:
                for half_life in HALF_LIVES[1:4]:
                    yield setting | {"rate": rate, "half_life": half_life}
            continue
        rates = (3e-4, 1e-3, *RATES)
        if optimizer == "Amos, all":
            rates = (3e-2, 1e-1, 0.2) if schedule == "linear" else (*rates, 0.05, 0.2)
        for rate in rates:
            for length in ({}, {"horizon": SHORT}) if schedule == "linear" else ({},):
                yield setting | {"rate": rate} | length
                if (optimizer, schedule) == ("AdamW", "linear") and rate in (3e-3, 1e-2):
                    for decay in (10.0, 100.0):
                        yield setting | {"rate": rate, "decay": decay} | length


def best(rows: list[dict[str, Any]], horizon: int, **wanted: Any) -> dict[str, Any]:
    """Return the setting with the smallest mean test loss over the tuning seeds after ``horizon`` steps.

    Args:
        rows: of the stored table.
        horizon: steps.
        wanted: what the setting must have, such as ``schedule="linear"``.
    """
    losses: dict[tuple, list[float]] = {}
    for row in rows:
        setting, known = row["setting"], row["setting"].get("horizon", horizon)
        same = setting.get("optimizer") == wanted.get("optimizer")
        if same and row["seed"] in TUNING and known == horizon and wanted.items() <= setting.items():
            losses.setdefault(tuple(setting.items()), []).append(row["test"][SHOWN.index(horizon)])
    return dict(min(losses, key=lambda s: sum(losses[s]) / len(losses[s])))


def contender(rows: list[dict[str, Any]], horizon: int, optimizer: str, schedule: str) -> dict[str, Any]:
    """Return the best setting of an optimizer and a schedule for ``horizon`` steps, ``STEPS`` or ``SHORT``.

    Args:
        rows: of the stored table.
        horizon: steps.
        optimizer: of ``OPTIMIZERS``.
        schedule: its schedule.
    """
    length = SHORT if (schedule, horizon) == ("linear", SHORT) else None
    own = [row for row in rows if row["setting"].get("horizon") == length]
    return best(own, horizon, schedule=schedule, optimizer=optimizer)


def runs(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what is to be trained: every schedule for tuning, the best ones on other seeds, and amounts of decay.

    Args:
        rows: stored so far; the best of a schedule is chosen when all of it is there.
    """
    for setting in _schedules():
        for seed in TUNING:
            yield setting, seed
    for schedule in ("constant", "inverse_time", "inverse_square", "linear", "cosine"):
        for horizon in HORIZONS:
            for seed in TESTING:
                yield best(rows, horizon, schedule=schedule), seed
    for optimizer, schedule in OPTIMIZERS:
        for horizon in (STEPS,) if optimizer in ("Amos, fan_in", "Amos, none") else (SHORT, STEPS):
            for seed in TESTING:
                yield contender(rows, horizon, optimizer, schedule), seed
    for decay in DECAYS:
        for base in (
            {"schedule": "constant", "rate": 1e-2},
            {"schedule": "inverse_time", "rate": 3e-2, "half_life": 300},
        ):
            for seed in TESTING:
                yield base | {"decay": decay}, seed
    for seed in TESTING:
        yield {"schedule": "constant", "rate": 1e-2, "decay": "cancelling"}, seed


def progress(seed: int, rate: float = 1e-2, longer: int = 4, batches: int | None = None) -> dict[str, list]:
    """Return how the updates of a run point to where training ends, for every weight matrix in blocks of 100 steps.

    The end θ* is that of the same run, continued to four times its length with a rate that falls to zero; then the
    run is repeated and compared with it.

    Args:
        seed: of weights and batches.
        rate: α₀, constant over the run.
        longer: length of the continuation, in runs.
        batches: seed of the batches on the way to θ*; default: those of the run itself.

    Returns:
        ``"cosine"``: between update and error; ``"q"``: θ·ε / ‖ε‖²; ``"error"``: ‖ε‖² / ‖ε₀‖²; ``"straight"``:
        ε·ε₀ / ‖ε₀‖², each ``[matrix][block]``; ``"norms"``: ‖θ₀‖, ‖θ*‖ and the cosine of θ₀ and θ* ``[matrix][3]``.
    """
    weights = lambda model: [p.detach().clone() for p in model.parameters() if p.ndim == 2]
    rest = (longer - 1) * STEPS
    falling = lambda t: 1.0 if t < STEPS else 1 - (t - STEPS) / rest
    options = {"optimizer": lambda p: RelativeUpdate(p, rate), "seed": seed, "progress": False}
    other = options if batches is None else options | {"seed": batches}
    end = fit(network(seed), cross_entropy, noisy_batch, schedule=falling, steps=longer * STEPS, **other).model
    start, goal = weights(network(seed)), weights(end)
    optimizer, seen = [], []

    def watched(params: Any) -> RelativeUpdate:
        optimizer.append(RelativeUpdate(params, rate))
        own = [p for p in optimizer[0].param_groups[0]["params"] if p.ndim == 2]
        before: list[Tensor] = []

        def remember(*_: Any) -> None:
            before[:] = [p.detach().clone() for p in own]

        optimizer[0].register_step_pre_hook(remember)

        def compare(*_: Any) -> None:
            row = []
            for first, old, p, last in zip(start, before, own, goal):
                error, whole = old - last, first - last
                update = old - p.detach() - rate**2 / 2 * old
                square = error.square().sum()
                cosine = (update * error).sum() / (update.norm() * square.sqrt())
                scale = whole.square().sum()
                row.append([cosine, (old * error).sum() / square, square / scale, (error * whole).sum() / scale])
            seen.append(torch.tensor(row))

        optimizer[0].register_step_post_hook(compare)
        return optimizer[0]

    fit(network(seed), cross_entropy, noisy_batch, steps=STEPS, **(options | {"optimizer": watched}))
    means = torch.stack(seen).view(-1, BLOCK, len(goal), 4).mean(1).permute(2, 1, 0)
    named = dict(zip(("cosine", "q", "error", "straight"), means.tolist()))
    cosines = [nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0).item() for x, y in zip(start, goal)]
    norms = [[x.norm().item(), y.norm().item(), c] for x, y, c in zip(start, goal, cosines)]
    return named | {"norms": norms}


def main() -> None:
    """Train and measure what is not stored yet.

    One thread; about three quarters of an hour.
    """
    torch.set_num_threads(1)
    content = load(NAME)[0] if NAME in names() else {"rows": [], "progress": {}, "other": {}}
    rows, stages, others = content["rows"], content["progress"], content.setdefault("other", {})
    store = lambda: save(
        NAME,
        rounded({"rows": rows, "progress": stages, "other": others}, 4),
        made_with={"seed": [*TUNING, *TESTING], "steps": STEPS, "batch": BATCH},
    )
    for seed in TESTING:
        if str(seed) not in stages:
            stages[str(seed)] = progress(seed)
            store()
            print("progress", seed, flush=True)
        if str(seed) not in others:
            others[str(seed)] = progress(seed, batches=100 + seed)
            store()
            print("progress to another goal", seed, flush=True)
    key = lambda setting, seed: (tuple(sorted(setting.items())), seed)
    done = {key(row["setting"], row["seed"]) for row in rows}
    for setting, seed in runs(rows):
        if key(setting, seed) not in done:
            done.add(key(setting, seed))
            rows.append({"setting": setting, "seed": seed, "test": run(seed=seed, **setting)})
            store()
            print(setting, seed, rows[-1]["test"][-1], flush=True)


if __name__ == "__main__":
    main()
