"""The map of the part on recurrence; drawn by ``draw_part_maps.py``."""

from __future__ import annotations

import torch
from map_layout import (
    ACROSS_TOP,
    BLUE,
    DOWN_BOTTOM,
    DOWN_LEFT,
    GREEN,
    LEFT,
    LOWER_RIGHT,
    ORANGE,
    RIGHT,
    UPPER_LEFT,
    UPPER_RIGHT,
    Arrow,
    Panel,
    draw_map,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from kexue_lib.recurrence.hippo import project, reconstruct
from kexue_lib.recurrence.hippo_discretization import legs_project_staircase, legs_scan
from kexue_lib.recurrence.lru import lru_eigenvalues, lru_init
from kexue_lib.recurrence.parallel_rnn import TanhCell, parallel_rnn
from kexue_lib.recurrence.s4 import legs_dplr, s4d_kernel


def recurrence() -> Figure:
    """Return the map of the part: from a linear state to nonlinear ones, and from a best memory to a kernel."""
    panels = [
        Panel("LRU", "a linear state that lasts", UPPER_LEFT, draw_ring),
        Panel("Parallel RNN", "must it be linear?", UPPER_RIGHT, draw_iterations),
        Panel("HiPPO", "which state remembers best?", LEFT, draw_memory),
        Panel("HiPPO in steps", "and on samples?", RIGHT, draw_orders),
        Panel("S4", "and all at once?", LOWER_RIGHT, draw_kernel),
    ]
    arrows = [
        Arrow(ACROSS_TOP, "linear steps,\nrepeated", (0.497, 0.84)),
        Arrow(DOWN_LEFT, "a matrix from\na purpose", (0.33, 0.66)),
        Arrow(((0.445, 0.475), (0.555, 0.475)), "step sizes", (0.50, 0.50)),
        Arrow(DOWN_BOTTOM, "one kernel", (0.77, 0.335)),
    ]
    thread = (
        "The common thread: what comes next\nneeds the past, and the past must fit\n"
        "into a state. Which state, and how is\nit computed for all times at once?"
    )
    return draw_map(panels, arrows, thread)


def draw_ring(axes: Axes) -> None:
    """Eigenvalues of a linear recurrent unit at the start, within the unit circle."""
    nu, theta, _ = lru_init(120, r_min=0.7, r_max=0.98, generator=torch.Generator().manual_seed(0))
    values = lru_eigenvalues(nu, theta)
    axes.add_patch(Circle((0, 0), 1, fill=False, color="#4D4D4D", lw=1))
    axes.scatter(values.real, values.imag, s=10, color=BLUE)
    axes.set(aspect="equal", anchor="W", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_iterations(axes: Axes) -> None:
    """Change of the states by iteration on a tanh recurrence: a fixed linear part (dashed), and Newton's."""
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(8, 8, generator=draw, dtype=torch.float64)
    A = 0.6 * A / torch.linalg.matrix_norm(A, 2)
    u = torch.randn(256, 8, generator=draw, dtype=torch.float64)
    for method, options, colour, style in (("constant", {"transition": A}, BLUE, "--"), ("newton", {}, ORANGE, "-")):
        info = parallel_rnn(TanhCell(A), u, method=method, max_iters=20, return_info=True, **options)
        shown = info.residuals[info.residuals > 1e-15]
        axes.semilogy(range(1, len(shown) + 1), shown, color=colour, ls=style, lw=2, marker="o", ms=4)
    axes.minorticks_off()


def draw_memory(axes: Axes) -> None:
    """A signal, and what 12 Legendre coefficients of its whole past recall."""
    wave = lambda t: torch.sin(3 * t) + torch.sin(7.3 * t + 1) / 2
    t = torch.linspace(0, 4, 300, dtype=torch.float64)
    recalled = reconstruct(project(wave, "legs", 12, 4.0), "legs", 4.0, t)
    axes.plot(t, wave(t), color=BLUE, lw=1.6)
    axes.plot(t, recalled, color=ORANGE, lw=2, ls="--")


def draw_orders(axes: Axes) -> None:
    """Error of the state by number of steps: the backward rule, the trapezoid, the exact step."""
    counts = [32, 64, 128, 256, 512, 1024]
    wave = lambda t: torch.sin(3 * t) + 0.3 * torch.cos(11 * t)
    fine = wave((torch.arange(32768, dtype=torch.float64) + 0.5) / 32768)
    truth = legs_project_staircase(fine, 8)[-1]
    for method, colour, style in (("backward", BLUE, "--"), ("bilinear", GREEN, ":"), ("zoh", ORANGE, "-")):
        states = (
            legs_scan(wave((torch.arange(n, dtype=torch.float64) + 0.5) / n), 8, method=method, return_all=False)
            for n in counts
        )
        axes.loglog(counts, [(x - truth).abs().max() for x in states], color=colour, ls=style, lw=2, marker="o", ms=4)
    axes.minorticks_off()


def draw_kernel(axes: Axes) -> None:
    """The kernel of one channel: one weight for each age of the input."""
    Lam, _, B, _ = legs_dplr(8)
    C = torch.randn(4, generator=torch.Generator().manual_seed(4), dtype=torch.complex128)
    axes.plot(s4d_kernel(Lam[4:], B[4:], C, 0.02, 200), color=BLUE, lw=2)
    axes.axhline(0, color="#BFBFBF", lw=1)
