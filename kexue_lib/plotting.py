"""One style, one palette, seven kinds of picture, and the result tables of all chapters.

Every drawing function takes ``ax=None`` (then it draws into the current axes), accepts tensors on any device, and
returns its ``Axes``. A picture that only one chapter needs is drawn in its notebook.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from kexue_lib._arguments import check_shape
from kexue_lib._extras import needs_notebook_extra
from kexue_lib._tables import Table, table

with needs_notebook_extra("kexue_lib.plotting"):
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.rcsetup import cycler

__all__ = [
    "DASHES",
    "MARKERS",
    "PALETTE",
    "Table",
    "array",
    "bars",
    "field",
    "heatmap",
    "histogram",
    "lines",
    "points",
    "table",
    "use_style",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A", "#4D4D4D")
"""Eight colours told apart with any colour vision (Okabe and Ito, 2008; its yellow and black, too faint or too heavy
for lines, replaced by a violet and a grey)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))


def use_style() -> None:
    """Set matplotlib to the style of the book: legible at phone width, PNG small enough for a notebook.

    Lines differ in dash as well as in colour, so that a figure survives a black-and-white print.

    >>> use_style()
    >>> mpl.rcParams["axes.titlesize"]
    12.0
    """
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=DASHES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "lines.linewidth": 2.0,
            "lines.markersize": 5,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "image.cmap": "viridis",
        }
    )
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:  # asked in a plain script, the backend would start a shell
        return
    try:  # in a notebook: figures as PNG only, whatever the reader's configuration says
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png")
    except (ImportError, AttributeError):  # another front end
        pass


def array(values: Any) -> np.ndarray:
    """Return values as a NumPy array; tensors are detached and brought to the CPU, bfloat16 becomes float32.

    Args:
        values: tensor, array, sequence or number.

    >>> array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
    if isinstance(values, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in values):
        return np.array([array(v) for v in values])
    return np.asarray(values)


def _finish(ax: Axes, title: str, xlabel: str, ylabel: str) -> Axes:
    ax.set_title(title, loc="left")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def lines(
    x: Any,
    curves: Mapping[str, Any],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
    marks: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw curves over one axis.

    Args:
        x: abscissae ``(n,)``, shared by all curves, or a mapping label → ``(n_label,)``.
        curves: label → ordinates ``(n,)``.
        title: what the picture shows.
        xlabel: quantity and unit.
        ylabel: quantity and unit.
        logx: logarithmic abscissa.
        logy: logarithmic ordinate.
        bands: label → (lower, upper) ``(n,)``, shaded in the colour of that curve.
        marks: mark the points, for measured values.
        ax: axes to draw into.

    Returns:
        The axes.

    >>> lines([0, 1], {"identity": [0, 1]}, title="t", xlabel="x", ylabel="y").get_title(loc="left")
    't'
    """
    ax = ax or plt.gca()
    for i, (label, y) in enumerate(curves.items()):
        xs = array(x[label] if isinstance(x, Mapping) else x)
        (line,) = ax.plot(xs, array(y), label=label, marker=MARKERS[i % len(MARKERS)] if marks else None)
        if bands and label in bands:
            low, high = (array(b) for b in bands[label])
            ax.fill_between(xs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    if logx:
        ax.set_xscale("log")
    if logy:
        ax.set_yscale("log")
    if len(curves) > 1:
        ax.legend()
    return _finish(ax, title, xlabel, ylabel)


def bars(
    groups: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw grouped bars, with their values written on them where there are few.

    Args:
        groups: series → (category → height). All series have the same categories.
        title: what the picture shows.
        xlabel: what the categories are.
        ylabel: quantity and unit.
        errors: series → (category → half length of the error bar).
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        ValueError: the series differ in their categories.

    >>> len(bars({"a": {"u": 1.0, "v": 2.0}}, title="t", xlabel="x", ylabel="y").patches)
    2
    """
    ax = ax or plt.gca()
    names = list(next(iter(groups.values())))
    for series, heights in groups.items():
        if list(heights) != names:
            raise ValueError(f"groups: got categories {list(heights)} in {series!r}, expected {names} as the first has")
    width = 0.8 / len(groups)
    for i, (series, heights) in enumerate(groups.items()):
        at = np.arange(len(names)) + (i - (len(groups) - 1) / 2) * width
        deviation = [errors[series][n] for n in names] if errors else None
        drawn = ax.bar(at, [float(heights[n]) for n in names], width * 0.92, yerr=deviation, capsize=3, label=series)
        if len(groups) * len(names) <= 10:  # more would overlap
            ax.bar_label(drawn, fmt="%.3g", fontsize=9, padding=2)
    ax.set_xticks(np.arange(len(names)), names)
    ax.grid(axis="x", visible=False)
    ax.margins(y=0.12)
    if len(groups) > 1:
        ax.legend()
    return _finish(ax, title, xlabel, ylabel)


def heatmap(
    matrix: Any,
    *,
    rows: Sequence[Any],
    columns: Sequence[Any],
    title: str,
    xlabel: str,
    ylabel: str,
    centre: float | None = None,
    values: str | None = None,
    colour_label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix as coloured cells; cells that are not finite are hatched.

    Args:
        matrix: ``(len(rows), len(columns))``.
        rows: labels, top to bottom.
        columns: labels, left to right.
        title: what the picture shows.
        xlabel: what the columns are.
        ylabel: what the rows are.
        centre: with it, a diverging map with this value in the middle.
        values: format of the number written in each cell, for example ``"{:.2f}"``; None writes none.
        colour_label: quantity and unit of the colour.
        ax: axes to draw into.

    Returns:
        The axes.

    Raises:
        ValueError: the labels do not fit the matrix.

    >>> heatmap([[1.0, 2.0]], rows=["r"], columns=["a", "b"], title="t", xlabel="x", ylabel="y").get_xlabel()
    'x'
    """
    cells = array(matrix).astype(float)
    check_shape("matrix", cells, (len(rows), len(columns)), "as rows and columns have labels")
    ax = ax or plt.gca()
    shown = np.ma.masked_invalid(cells)
    scale: dict[str, Any] = {}
    if centre is not None:
        reach = float(np.abs(shown - centre).max()) or 1.0
        scale = {"cmap": "RdBu_r", "vmin": centre - reach, "vmax": centre + reach}
    ax.set_facecolor("#BBBBBB")
    picture = ax.pcolormesh(shown, **scale)
    bad = np.argwhere(~np.isfinite(cells))
    for r, c in bad:
        ax.add_patch(plt.Rectangle((c, r), 1, 1, fill=False, hatch="///", linewidth=0, edgecolor="#555555"))
    if values:
        for (r, c), v in np.ndenumerate(cells):
            dark = np.isfinite(v) and np.dot(picture.to_rgba(v)[:3], (0.299, 0.587, 0.114)) < 0.5
            text = values.format(v) if np.isfinite(v) else "NaN"
            ax.text(c + 0.5, r + 0.5, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
    ax.set_xticks(np.arange(len(columns)) + 0.5, [str(c) for c in columns])
    ax.set_yticks(np.arange(len(rows)) + 0.5, [str(r) for r in rows])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.figure.colorbar(picture, ax=ax, label=colour_label)
    return _finish(ax, title, xlabel, ylabel)


def histogram(
    samples: Any,
    *,
    title: str,
    xlabel: str,
    bins: int = 60,
    density: Callable[[np.ndarray], Any] | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a normalised histogram, with the density that it should follow.

    Args:
        samples: any shape, flattened.
        title: what the picture shows.
        xlabel: quantity and unit.
        bins: number of bins.
        density: function of the abscissae ``(m,)``, drawn as a line.
        limits: range of the abscissa; default that of the samples.
        ax: axes to draw into.

    Returns:
        The axes.

    >>> histogram(torch.zeros(3), title="t", xlabel="x").get_ylabel()
    'density'
    """
    ax = ax or plt.gca()
    flat = array(samples).ravel()
    ax.hist(flat, bins=bins, range=limits, density=True, color=PALETTE[0], alpha=0.45, label="samples")
    if density is not None:
        x = np.linspace(*(limits or (flat.min(), flat.max())), 400)
        ax.plot(x, array(density(x)), color=PALETTE[1], linestyle="-", label="density")
        ax.legend()
    return _finish(ax, title, xlabel, "density")


def points(
    samples: Any,
    *,
    title: str,
    xlabel: str = "$x_1$",
    ylabel: str = "$x_2$",
    reference: Any | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw points of the plane, over a reference set if there is one.

    Args:
        samples: ``(n, 2)``.
        title: what the picture shows.
        xlabel: quantity and unit.
        ylabel: quantity and unit.
        reference: ``(m, 2)``, drawn pale underneath.
        ax: axes to draw into.

    Returns:
        The axes, with equal units on both.

    Raises:
        ValueError: ``samples`` or ``reference`` is not ``(n, 2)``.

    >>> points(torch.zeros(3, 2), title="t").get_aspect()
    1.0
    """
    ax = ax or plt.gca()
    for name, given, colour, size in (("reference", reference, "#BBBBBB", 9), ("samples", samples, PALETTE[0], 6)):
        if given is None:
            continue
        xy = array(given)
        check_shape(name, xy, ("n", 2))
        ax.scatter(xy[:, 0], xy[:, 1], s=size, c=colour, linewidths=0, label=name, rasterized=True)
    if reference is not None:
        ax.legend(markerscale=2)
    ax.set_aspect("equal")
    return _finish(ax, title, xlabel, ylabel)


def field(
    function: Callable[[torch.Tensor], torch.Tensor],
    *,
    limits: tuple[float, float, float, float],
    title: str,
    xlabel: str = "$x_1$",
    ylabel: str = "$x_2$",
    resolution: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Draw a vector field of the plane as arrows coloured by their length.

    Args:
        function: maps ``(m, 2)`` points to ``(m, 2)`` vectors.
        limits: (left, right, bottom, top).
        title: what the picture shows.
        xlabel: quantity and unit.
        ylabel: quantity and unit.
        resolution: arrows along each side.
        ax: axes to draw into.

    Returns:
        The axes, with equal units on both.

    >>> field(lambda x: -x, limits=(-1.0, 1.0, -1.0, 1.0), title="t").get_title(loc="left")
    't'
    """
    ax = ax or plt.gca()
    gx, gy = np.meshgrid(np.linspace(*limits[:2], resolution), np.linspace(*limits[2:], resolution))
    grid = torch.tensor(np.stack([gx.ravel(), gy.ravel()], 1), dtype=torch.float32)
    arrows = array(function(grid))
    length = np.linalg.norm(arrows, axis=1)
    unit = arrows / np.maximum(length, 1e-12)[:, None]
    drawn = ax.quiver(grid[:, 0], grid[:, 1], unit[:, 0], unit[:, 1], length, cmap="viridis", scale=resolution * 1.4)
    ax.figure.colorbar(drawn, ax=ax, label="length")
    ax.set_aspect("equal")
    ax.grid(visible=False)
    return _finish(ax, title, xlabel, ylabel)
