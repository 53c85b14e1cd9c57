"""The frame of a part's map: a picture of each chapter in its place, arrows between them, the thread in a corner."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from kexue_lib.plotting import PALETTE

BLUE, ORANGE, GREEN = PALETTE[:3]

# A place for each picture: the left and lower edge as fractions of the drawing.
UPPER_LEFT, UPPER_RIGHT, LEFT, RIGHT, LOWER_RIGHT = (
    (0.07, 0.71),
    (0.57, 0.71),
    (0.07, 0.385),
    (0.57, 0.385),
    (0.57, 0.06),
)
ACROSS_TOP, BACK_ACROSS = ((0.44, 0.80), (0.555, 0.80)), ((0.555, 0.475), (0.445, 0.475))
DOWN_LEFT = ((0.25, 0.695), (0.25, 0.625))
DOWN_TOP, DOWN_BOTTOM, SLANTED = (
    ((0.75, 0.695), (0.75, 0.625)),
    ((0.75, 0.37), (0.75, 0.30)),
    ((0.565, 0.715), (0.42, 0.585)),
)


class Panel(NamedTuple):
    """One chapter: its title, what it answers, where it stands, and the function that draws it."""

    title: str
    answer: str
    place: tuple[float, float]
    draw: Callable[[Axes], None]


class Arrow(NamedTuple):
    """From one chapter to the next: its ends, the words beside it, and where they stand."""

    ends: tuple[tuple[float, float], tuple[float, float]]
    words: str
    place: tuple[float, float]


def draw_map(panels: list[Panel], arrows: list[Arrow], thread: str) -> Figure:
    """Return the map of a part: a picture of each chapter, arrows, and the common thread in the corner left free."""
    figure = plt.figure(figsize=(7.0, 8.6), layout="none")
    for panel in panels:
        axes = figure.add_axes((*panel.place, 0.36, 0.185))
        panel.draw(axes)
        axes.set_title(f"{panel.title}\n", fontsize=13, loc="left")
        axes.text(0, 1.05, panel.answer, transform=axes.transAxes, fontsize=11, color="#4D4D4D")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
    for arrow in arrows:
        style = {"arrowstyle": "-|>", "color": "#4D4D4D", "lw": 1.6}
        figure.add_artist(FancyArrowPatch(*arrow.ends, mutation_scale=16, **style))
        aligned = "left" if arrow.ends[0][0] == arrow.ends[1][0] else "center"  # beside an arrow that points down
        figure.text(*arrow.place, arrow.words, ha=aligned, va="center", fontsize=11)
    figure.text(0.07, 0.155, thread, fontsize=12, va="center", linespacing=1.5)
    return figure
