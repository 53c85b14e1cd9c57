"""Draw the book's mark, its favicon and the card that links to the site show.

The mark is the smooth step of the first chapter at four temperatures, from nearly straight to nearly hard: what a
derivation does to a guess. Run ``python tools/draw_logo.py`` after a change; the drawings are committed.
"""

from __future__ import annotations

import math
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "_static"
TITLE = ("Scientific Spaces,", "Proved and Run")
STEEPNESS = (3.0, 7.0, 30.0)
LIGHT = {"ground": "none", "lines": ("#8fb8b4", "#3f8f8a", "#0b5d5e"), "dot": "#c2571a"}
DARK = {"ground": "none", "lines": ("#3f6f6e", "#5fb3ad", "#9fe3da"), "dot": "#f0a36b"}
ICON = {"ground": "#0b5d5e", "lines": ("#4f9691", "#9fd0cb", "#ffffff"), "dot": "#ffb27a"}
BADGES = {"colab": ("Open in", "Colab"), "binder": ("Launch on", "Binder")}


def main() -> None:
    """Write the SVG files by hand and the PNG card with matplotlib.

    Everything goes to ``_static``; the badges to ``_static/badges``.
    """
    (STATIC / "logo-light.svg").write_text(mark(**LIGHT), encoding="utf-8")
    (STATIC / "logo-dark.svg").write_text(mark(**DARK), encoding="utf-8")
    (STATIC / "favicon.svg").write_text(mark(**ICON), encoding="utf-8")
    for name, words in BADGES.items():
        (STATIC / "badges" / f"{name}.svg").write_text(badge(*words), encoding="utf-8")
    draw_card(STATIC / "card.png")


def mark(ground: str, lines: tuple[str, ...], dot: str) -> str:
    """Return the mark as SVG.

    Args:
        ground: colour of the rounded square below, or ``"none"``.
        lines: one colour for each steepness, faintest first.
        dot: colour of the point that all steps pass through.
    """
    paths = "".join(
        f'<path d="{_step(steepness)}" fill="none" stroke="{colour}" stroke-width="5" stroke-linecap="round"/>'
        for steepness, colour in zip(STEEPNESS, lines)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" role="img">'
        f'<rect width="100" height="100" rx="22" fill="{ground}"/>{paths}'
        f'<circle cx="50" cy="50" r="8" fill="{dot}"/></svg>\n'
    )


def badge(verb: str, name: str) -> str:
    """Return a launch badge as SVG.

    Args:
        verb: left half.
        name: right half.
    """
    left, right = 7 * len(verb) + 14, 7 * len(name) + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="22" role="img" '
        f'aria-label="{verb} {name}"><rect width="{left + right}" height="22" rx="4" fill="#3c4650"/>'
        f'<path d="M{left} 0h{right - 4}a4 4 0 0 1 4 4v14a4 4 0 0 1-4 4h-{right - 4}z" fill="#0b5d5e"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11.5">'
        f'<text x="{left / 2}" y="15">{verb}</text><text x="{left + right / 2}" y="15">{name}</text></g></svg>\n'
    )


def draw_card(path: Path) -> None:
    """Draw the picture that a shared link shows, 1200 by 630 pixels.

    Args:
        path: the PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#0b5d5e")
    axes = figure.add_axes((0.56, 0.1, 0.4, 0.8))
    axes.axis("off")
    x = np.linspace(-1, 1, 400)
    for steepness, colour in zip((1.5, *STEEPNESS, 80.0), ("#2f7776", "#4f9691", "#7fbab5", "#c8e6e2", "#ffffff")):
        axes.plot(x, 1 / (1 + np.exp(-steepness * x)), color=colour, linewidth=5, solid_capstyle="round")
    axes.plot([0], [0.5], "o", color="#ffb27a", markersize=24)
    figure.text(0.06, 0.60, TITLE[0], color="white", fontsize=44, family="DejaVu Serif")
    figure.text(0.06, 0.47, TITLE[1], color="white", fontsize=44, family="DejaVu Serif")
    figure.text(0.06, 0.33, "An executable book after the articles of Su Jianlin", color="#c8e6e2", fontsize=19)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _step(steepness: float) -> str:
    points = [-1 + i / 20 for i in range(41)]
    coordinates = [(50 + 40 * x, 84 - 68 / (1 + math.exp(-steepness * x))) for x in points]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in coordinates)


if __name__ == "__main__":
    main()
