"""Draw how the chapters of a part hang together: one small picture of each, made by its own functions, and arrows.

Run ``python tools/draw_part_maps.py`` after a change; the drawings are committed in ``_static/maps``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kexue_lib.distributions.fourier_density import FourierDensity
from kexue_lib.distributions.smooth_topk import grad_topk
from kexue_lib.distributions.softmax_alternatives import entmax
from kexue_lib.distributions.squareplus import squareplus
from kexue_lib.plotting import PALETTE, use_style

MAPS = Path(__file__).resolve().parent.parent / "_static" / "maps"
BLUE, ORANGE, GREEN = PALETTE[:3]
SCORES = torch.tensor([0.3, 1.6, -0.7, 2.1, 0.9, -1.4, 1.9, 0.1], dtype=torch.float64)


def main() -> None:
    """Write one PNG for each part that has a map."""
    use_style()
    MAPS.mkdir(exist_ok=True)
    distributions().savefig(MAPS / "distributions.png", dpi=130, facecolor="white")


def distributions() -> Figure:
    """Return the map of the part on distributions: from one score to a whole curve."""
    figure = plt.figure(figsize=(7.0, 8.6), layout="none")
    places = {
        "Squareplus": ((0.07, 0.71), draw_squareplus, "one score: a soft corner"),
        "Softmax and its substitutes": ((0.57, 0.71), draw_substitutes, "choose 1 of n"),
        "Sparsity": ((0.07, 0.385), draw_lorenz, "how many entries count?"),
        "Smooth top-k": ((0.57, 0.385), draw_topk, "choose k of n"),
        "Fourier density": ((0.57, 0.06), draw_density, "choose among all real numbers"),
    }
    for title, ((left, bottom), draw, answer) in places.items():
        axes = figure.add_axes((left, bottom, 0.36, 0.185))
        draw(axes)
        axes.set_title(f"{title}\n", fontsize=13, loc="left")
        axes.text(0, 1.05, answer, transform=axes.transAxes, fontsize=11, color="#4D4D4D")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
    for start, end, words, place in (
        ((0.44, 0.80), (0.555, 0.80), "relu(x − λ)\nper entry", (0.497, 0.84)),
        ((0.75, 0.695), (0.75, 0.625), "k instead of 1", (0.77, 0.66)),
        ((0.565, 0.715), (0.42, 0.585), "what does\nit select?", (0.415, 0.665)),
        ((0.555, 0.475), (0.445, 0.475), "effective\nnumber k", (0.50, 0.515)),
        ((0.75, 0.37), (0.75, 0.30), "a line of entries", (0.77, 0.335)),
    ):
        style = {"arrowstyle": "-|>", "color": "#4D4D4D", "lw": 1.6}
        figure.add_artist(plt.matplotlib.patches.FancyArrowPatch(start, end, mutation_scale=16, **style))
        aligned = "left" if place[0] > 0.7 else "center"
        figure.text(*place, words, ha=aligned, va="center", fontsize=11)
    figure.text(
        0.07,
        0.155,
        "The common thread: a hard choice\n(a corner, a maximum, a selection,\na histogram) becomes a smooth map\n"
        "that is normalised exactly and can be\ntrained by its gradient.",
        fontsize=12,
        va="center",
        linespacing=1.5,
    )
    return figure


def draw_squareplus(axes: Axes) -> None:
    """ReLU and squareplus."""
    x = torch.linspace(-4, 4, 200, dtype=torch.float64)
    axes.plot(x, x.relu(), color=BLUE, lw=2)
    axes.plot(x, squareplus(x, 4.0), color=ORANGE, lw=2, ls="--")


def draw_substitutes(axes: Axes) -> None:
    """The same scores under softmax and 1.5-entmax, which has exact zeros."""
    draw_bars(axes, [SCORES.softmax(-1), entmax(SCORES * 1.4, 1.5)])


def draw_topk(axes: Axes) -> None:
    """Marginals of three entries out of eight, warm and cold."""
    draw_bars(axes, [grad_topk(SCORES, 3, tau=0.7), grad_topk(SCORES, 3, tau=0.15)])


def draw_bars(axes: Axes, heights: list[torch.Tensor]) -> None:
    """Bars side by side for each entry."""
    for shift, colour, p in zip((-0.2, 0.2), (BLUE, ORANGE), heights):
        axes.bar(torch.arange(len(p)) + shift, p, width=0.4, color=colour)


def draw_lorenz(axes: Axes) -> None:
    """Lorenz curves of two vectors, below the line of equal entries."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, dtype=torch.float64, generator=generator)
    for spread, colour, style in ((0.6, BLUE, "-"), (2.0, ORANGE, "--")):
        share = (spread * noise).softmax(-1).sort().values.cumsum(-1)
        axes.plot(torch.linspace(0, 1, 400), share, color=colour, ls=style, lw=2)
    axes.plot([0, 1], [0, 1], color="#4D4D4D", lw=1)


def draw_density(axes: Axes) -> None:
    """A histogram of two peaks and the density fitted to it."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda mean, std, n: mean + std * torch.randn(n, dtype=torch.float64, generator=generator)
    y = torch.cat((normal(-1.5, 0.35, 1500), normal(1.0, 0.7, 2500)))
    model = FourierDensity.from_samples(y, 20)
    x = torch.linspace(-3.2, 3.6, 300, dtype=torch.float64)
    axes.hist(y, bins=60, density=True, color=BLUE, alpha=0.4)
    axes.plot(x, model.prob(x.to(model.a.real.dtype)).detach(), color=ORANGE, lw=2)


DRAWINGS: dict[str, Callable[[], Figure]] = {"distributions": distributions}

if __name__ == "__main__":
    main()
