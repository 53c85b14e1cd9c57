"""Fourier densities against mixtures, a monotone network and kernels; penalties; σ; bins; a density by a network.

Run by ``python -m kexue_lib.checkpoints.distributions.fourier_density`` with one thread, about twenty minutes. Every
seed draws its own training, validation and test samples, shared by all models. Each model has its best rate (bandwidth,
strength), chosen on the validation samples, and is scored on the test samples. The losses are in nats, less the loss of
the true density on the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kexue_lib.checkpoints import rounded, save
from kexue_lib.checkpoints.distributions._density_rivals import (
    MonotoneNetwork,
    TrainedMixture,
    expectation_maximisation,
    kernels,
    train,
)
from kexue_lib.checkpoints.distributions._density_tasks import conditional, pricing
from kexue_lib.distributions import fourier_density as fd

__all__ = ["LINE", "NARROW", "RATES", "SEEDS", "STRENGTHS", "blocks_log_prob", "draw_peaks", "main", "peaks_log_prob"]

SEEDS, STEPS, BATCH = 8, 800, 1000
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
MORE_RATES = (*RATES, 2.0, 5.0, 10.0)  # for Fourier densities, which choose 1 at times
STRENGTHS = tuple(10 ** (-7 + j / 2) for j in range(17))
PENALISED = ("article", "article, ‖a‖ = 1", "density", "density, ‖a‖ = 1")
LINE = (-6.0, 6.0, 601)
PEAKS = torch.arange(-4.0, 5.0)
WEIGHTS = torch.tensor(np.random.default_rng(0).dirichlet([5] * 9)).float()
NARROW = (0.165, 0.10125, 0.22875, 0.18625, 0.14375, 0.25, 0.1225, 0.2075, 0.08)
"""Standard deviations of the nine peaks at −4 … 4; the narrowest is the outermost."""
SHARES = torch.tensor([0.3, 0.2, 0.35, 0.15])


def peaks_log_prob(y: Tensor, widths: tuple[float, ...] = NARROW) -> Tensor:
    """Return the log density of the nine peaks, log Σ_k w_k N(y; k, s_k²).

    Args:
        y: points, any shape.
        widths: the standard deviations s_k of the peaks at −4 … 4.
    """
    scale = torch.tensor(widths)
    u = (y[..., None] - PEAKS) / scale
    return (WEIGHTS.log() - scale.log() - 0.5 * math.log(2 * math.pi) - 0.5 * u.square()).logsumexp(-1)


def draw_peaks(count: int, g: torch.Generator) -> Tensor:
    """Return samples of the nine peaks (SEEDS, count).

    Args:
        count: samples for each seed.
        g: source of all draws.
    """
    which = torch.multinomial(WEIGHTS, SEEDS * count, replacement=True, generator=g)
    y = PEAKS[which] + torch.tensor(NARROW)[which] * torch.randn(SEEDS * count, generator=g)
    return y.reshape(SEEDS, count)


def blocks_log_prob(y: Tensor) -> Tensor:
    """Return the log density of two uniform blocks, a triangle and a spike.

    Args:
        y: points, any shape.
    """
    parts = [((y > -3) & (y < -2)).float(), 2.0 * ((y > -1) & (y < -0.5)).float(), (1 - (y - 2).abs()).clamp(min=0)]
    parts.append(torch.exp(-0.5 * ((y - 0.3) / 0.04) ** 2) / (0.04 * math.sqrt(2 * math.pi)))
    return (torch.stack(parts, -1) @ SHARES).log()


def draw_blocks(count: int, g: torch.Generator) -> Tensor:
    """Return samples of the blocks, the triangle and the spike (SEEDS, count).

    Args:
        count: samples for each seed.
        g: source of all draws.
    """
    total = SEEDS * count
    which = torch.multinomial(SHARES, total, replacement=True, generator=g)
    v = torch.rand(total, 2, generator=g)
    parts = (v[:, 0] - 3, 0.5 * v[:, 0] - 1, 1 + v.sum(1), 0.3 + 0.04 * torch.randn(total, generator=g))
    return torch.stack(parts, 1).gather(1, which[:, None])[:, 0].reshape(SEEDS, count)


def _rows(data: Tensor, copies: int) -> Tensor:
    """Each row of data (SEEDS, M) copies times: (SEEDS · copies, M)."""
    return data.repeat_interleave(copies, 0)


def _batches(data: Tensor, copies: int, seed: int = 0) -> Callable[[], Tensor]:
    """Random batches of each seed's samples, the same for all copies."""
    g = torch.Generator().manual_seed(seed)
    return lambda: _rows(data.gather(1, torch.randint(data.shape[1], (SEEDS, BATCH), generator=g)), copies)


def _score(model: torch.nn.Module, y: Tensor, copies: int) -> Tensor:
    """Mean loss (SEEDS, copies)."""
    with torch.no_grad():
        return -model.log_prob(_rows(y, copies)).clamp(min=-60).mean(-1).reshape(SEEDS, copies)


def _at_best_rate(
    make: Callable[[Tensor], torch.nn.Module],
    sets: dict[str, Tensor],
    seen: Callable,
    steps: int = STEPS,
    rates: tuple[float, ...] = RATES,
) -> dict:
    """Train with every rate; each seed's best on the validation samples, scored on the test samples."""
    copies = len(rates)
    model = make(_rows(sets["train"], copies))
    rate = torch.tensor(rates).repeat(SEEDS)
    loss = lambda y: -model.log_prob(y).mean(-1)
    train(list(model.parameters()), loss, rate, _batches(sets["train"], copies), steps)
    best = _score(model, sets["valid"], copies).argmin(1)
    of_seed = torch.arange(SEEDS)
    with torch.no_grad():
        curve = model.log_prob(torch.linspace(*LINE).expand(SEEDS * copies, -1))[best[0]].exp()
    chosen = {"test": _score(model, sets["test"], copies)[of_seed, best], "rate": [rates[i] for i in best.tolist()]}
    return {**chosen, "curve": curve, **seen(model, of_seed * copies + best)}


def _fourier_facts(model: fd.FourierDensity, chosen: Tensor) -> dict:
    """Zeros of A near the unit circle, the smallest p, μ and σ."""
    a, x = model.a.detach()[chosen], torch.linspace(-1, 1, 20001, dtype=torch.float64)
    size = a.shape[-1]
    off = [np.abs(np.log(np.abs(np.roots(v.numpy()[::-1].astype(complex))))) * size for v in a]
    least = fd.periodic_prob(a.to(torch.complex128), x.expand(len(a), -1)).amin(1)
    near = [int((v < 0.1).sum()) for v in off]
    place = {"loc": model.loc[chosen], "sigma": model.scale[chosen]}
    return {"near": near, "closest": [float(v.min()) for v in off], "least": least, **place}


def _closed_facts(model: fd.FourierDensity, chosen: Tensor) -> dict:
    """The same, and the heights (SEEDS, 9) at the nine peaks."""
    with torch.no_grad():
        heights = model.log_prob(PEAKS.expand(len(model.coef), -1))[chosen].exp()
    return {**_fourier_facts(model, chosen), "heights": heights}


def _compare(sets: dict[str, Tensor], truth: Callable[[Tensor], Tensor], sizes: dict[int, tuple]) -> dict:
    """All families on one target: sizes maps N to (components, layers of the network)."""
    nothing = lambda model, chosen: {}
    found = {}
    for frequencies, rivals in sizes.items():
        closed = partial(_closed_form, n=frequencies)
        found[f"Fourier, N = {frequencies}"] = _at_best_rate(closed, sets, _closed_facts, rates=MORE_RATES)
        start = _score(closed(sets["train"]), sets["test"], 1)[:, 0]
        found[f"Fourier start, N = {frequencies}"] = {"test": start}
        if not rivals:
            continue
        components, layers = rivals
        random = partial(_random_start, n=frequencies)
        found[f"Fourier, random start, N = {frequencies}"] = _at_best_rate(
            random, sets, _fourier_facts, rates=MORE_RATES
        )
        for start in ("spread", "near the mean"):
            make = lambda y, k=components, s=start: TrainedMixture(k, y, s, len(RATES))
            found[f"mixture of {components}, Adam, {start}"] = _at_best_rate(make, sets, nothing)
        make = lambda y, w=layers: MonotoneNetwork(w, y, len(RATES))
        for steps in (STEPS, 4 * STEPS):
            found[f"monotone network {layers}, {steps} steps"] = _at_best_rate(make, sets, nothing, steps)
        found[f"mixture of {components}, EM"] = expectation_maximisation(sets, components)
    found["kernels"] = kernels(sets)
    return _less_truth(found, sets, truth)


def _less_truth(found: dict, sets: dict[str, Tensor], truth: Callable[[Tensor], Tensor]) -> dict:
    floor = -truth(sets["test"]).mean(-1)
    for result in found.values():
        result["test"] = torch.as_tensor(result["test"]) - floor
    return rounded(found, 4)


def _other_starts(sets: dict[str, Tensor]) -> dict:
    """The nine peaks once more: σ from 2 standard deviations, and from loc = 0, scale = 1."""
    found = {}
    for n in (40, 80):
        closed = partial(_closed_form, n=n, factor=2.0)
        found[f"Fourier from 2 sd, N = {n}"] = _at_best_rate(closed, sets, _closed_facts, rates=MORE_RATES)
    random = partial(_random_start, n=40, place="default")
    found["Fourier, loc = 0, scale = 1, N = 40"] = _at_best_rate(random, sets, _fourier_facts, rates=MORE_RATES)
    return _less_truth(found, sets, peaks_log_prob)


def _closed_form(y: Tensor, n: int, factor: float = 1.5) -> fd.FourierDensity:
    return fd.FourierDensity.from_samples(y, n, scale_factor=factor)


def _random_start(y: Tensor, n: int, place: str = "data") -> fd.FourierDensity:
    """a_0 = 1 and small random numbers; rates of one seed share them. loc, scale as in the closed form, or 0 and 1."""
    like = fd.FourierDensity(n, (SEEDS,), generator=torch.Generator().manual_seed(1))
    model = fd.FourierDensity(n, (len(y),), *((y.mean(-1), 1.5 * y.std(-1)) if place == "data" else ()))
    with torch.no_grad():
        model.coef.copy_(like.coef.repeat_interleave(len(y) // SEEDS, 0))
    return model


def _widths(sets: dict[str, Tensor], factors: tuple[float, ...] = (0.75, 1, 1.5, 2, 3, 4)) -> dict:
    """N = 40 with σ fixed at factors of the standard deviation: loss, and the height of the narrow outermost peak."""
    copies, y = len(factors), sets["train"]
    model = fd.FourierDensity(40, (SEEDS * copies,), _rows(y, copies).mean(-1), learn_affine=False)
    factor = torch.tensor(factors).repeat(SEEDS)
    start = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.raw_scale.copy_((factor * _rows(y, copies).std(-1)).expm1().log())
        model.coef[:, 1:] = (0.02 * torch.randn(SEEDS, 40, 2, generator=start)).repeat_interleave(copies, 0)
    loss = lambda v: -model.log_prob(v).mean(-1)
    train([model.coef], loss, torch.full((SEEDS * copies,), 0.02), _batches(y, copies), STEPS)
    edge = torch.tensor([[4.0]])
    with torch.no_grad():
        height = model.log_prob(edge.expand(SEEDS * copies, 1)).reshape(SEEDS, copies) - peaks_log_prob(edge)
    floor = -peaks_log_prob(sets["test"]).mean(-1, keepdim=True)
    excess = _score(model, sets["test"], copies) - floor
    return rounded({"factors": list(factors), "excess": excess, "height": height.exp()}, 4)


def _penalties(few: Tensor, valid: Tensor, test: Tensor) -> dict:
    """200 samples, N = 30, the strength chosen for each seed on validation samples, and one for all ("common").

    "article": Σ 2π²n²|c_n|²; "density": divided by 4c_0²; "none": strength 0. With a number: ‖a‖ is set to it after
    every step; strengths of "density, ‖a‖ = 1" count four times, as at that norm the two penalties are then one.
    "start": the closed form, untrained.
    """
    arms = [("none", 0.0), ("none, ‖a‖ = 0.1", 0.0)]
    arms += [(name, s) for name in PENALISED for s in STRENGTHS]
    copies, gamma = len(arms), torch.tensor([s for _, s in arms]).repeat(SEEDS)
    kind = {name: torch.tensor([n == name for n, _ in arms]).repeat(SEEDS) for name, _ in arms}
    model = fd.FourierDensity(30, (SEEDS * copies,), learn_affine=False)
    start = 0.02 * torch.randn(SEEDS, 30, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model.loc.copy_(_rows(few, copies).mean(-1))
        model.raw_scale.copy_((1.5 * _rows(few, copies).std(-1)).expm1().log())
        model.coef[:, 1:] = start.repeat_interleave(copies, 0)
    held = torch.full((SEEDS * copies, 1, 1), math.nan)  # NaN: the norm is free
    for name in kind:
        if "=" in name:
            held[kind[name]] = float(name.split("=")[1])
    of_density = kind["density"] | kind["density, ‖a‖ = 1"]
    gamma = torch.where(kind["density, ‖a‖ = 1"], 4 * gamma, gamma)

    def loss(y: Tensor) -> Tensor:
        penalty = torch.where(of_density, model.smoothness_penalty(), model.smoothness_penalty(False))
        return gamma * penalty - model.log_prob(y).clamp(min=-60).mean(-1)

    data, results = _rows(few, copies), {}
    first, second = torch.zeros_like(model.coef), torch.zeros_like(model.coef)
    floor = -peaks_log_prob(test).mean(-1)
    results["start"] = _score(fd.FourierDensity.from_samples(few, 30), test, 1)[:, 0] - floor
    for step in range(1, 2401):
        (g,) = torch.autograd.grad(loss(data).sum(), [model.coef])
        with torch.no_grad():
            first.lerp_(g, 0.1)
            second.lerp_(g.square(), 0.001)
            model.coef.sub_(0.02 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
            norm = model.coef.square().sum((1, 2), keepdim=True).sqrt()
            model.coef.copy_(torch.where(held.isnan(), model.coef, model.coef * held / norm))
        if step in (150, 600, 2400):
            results[str(step)] = _penalty_table(model, arms, valid, test, floor)
    return rounded(results, 4)


def _penalty_table(model: fd.FourierDensity, arms: list, valid: Tensor, test: Tensor, floor: Tensor) -> dict:
    copies = len(arms)
    held, fresh = _score(model, valid, copies), _score(model, test, copies) - floor[:, None]
    with torch.no_grad():
        rough, norm = (
            v.reshape(SEEDS, copies) for v in (model.smoothness_penalty(), model.coef.square().sum((1, 2)).sqrt())
        )
    table = {}
    for name in dict.fromkeys(n for n, _ in arms):
        own = torch.tensor([j for j, (n, _) in enumerate(arms) if n == name])
        best = own[held[:, own].argmin(1)]
        take = lambda v, best=best: v[torch.arange(SEEDS), best]
        table[name] = {"test": take(fresh), "rough": take(rough), "norm": take(norm), "path": fresh[:, own].mean(0)}
        common = own[held[:, own].mean(0).argmin()]
        table[name] |= {
            "common": fresh[:, common],
            "common rough": rough[:, common],
            "common strength": arms[common][1],
        }
        table[name]["strength"] = [arms[j][1] for j in best.tolist()]
        table[name]["end"] = sum(j in (own[0], own[-1]) for j in best) if len(own) > 1 else 0
    return table


def main() -> None:
    """Run all comparisons and store the table.

    The file is ``fourier_density.json`` beside this script.
    """
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(10007)
    peaks = {name: draw_peaks(size, g) for name, size in (("train", 4000), ("valid", 4000), ("test", 10000))}
    pieces = {name: draw_blocks(size, g) for name, size in (("train", 4000), ("valid", 4000), ("test", 10000))}
    both = {20: (14, (3, 3, 3)), 40: (28, (5, 5, 4))}
    content = {"peaks": _compare(peaks, peaks_log_prob, {10: (), **both, 80: ()}) | _other_starts(peaks)}
    content["sd"] = rounded(peaks["train"].std(-1))
    content["blocks"] = _compare(pieces, blocks_log_prob, {40: both[40]})
    for result in content["blocks"].values():
        result.pop("curve", None)
        result.pop("heights", None)
    content["sigma"] = _widths(peaks)
    content["penalty"] = _penalties(draw_peaks(200, g), peaks["valid"], peaks["test"])
    content["pricing"] = pricing()
    content["conditional"] = conditional(SEEDS)
    save(
        "distributions/fourier_density",
        content,
        made_with={"seed": 10007, "seeds": SEEDS, "steps": STEPS, "rates": list(RATES)},
    )


if __name__ == "__main__":
    main()
