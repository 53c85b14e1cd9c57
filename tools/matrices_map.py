"""The map of the part on matrices, and its comparison of all LoRA methods; drawn by ``draw_part_maps.py``."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from map_layout import (
    ACROSS_TOP,
    BLUE,
    DOWN_BOTTOM,
    DOWN_TOP,
    LEFT,
    LOWER_RIGHT,
    ORANGE,
    RIGHT,
    SLANTED,
    UPPER_LEFT,
    UPPER_RIGHT,
    Arrow,
    Panel,
    draw_map,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kexue_lib.checkpoints import load
from kexue_lib.matrices.lora_gradient import LoRAPair, equivalent_gradient, lora_gradients
from kexue_lib.matrices.lora_pro import LoRAProSGD
from kexue_lib.matrices.monarch import block_diag_dense, monarch_permutation
from kexue_lib.plotting import PALETTE


def matrices() -> Figure:
    """Return the map of the part: four views of one low-rank step, and a form that is not of low rank."""
    panels = [
        Panel("LoRA", "what is left of the gradient?", UPPER_LEFT, draw_spectra),
        Panel("LoRA+", "which factor moves faster?", UPPER_RIGHT, draw_valley),
        Panel("LoRA-Pro", "and at every further step?", LEFT, draw_ways),
        Panel("LoRA-GA", "where should it start?", RIGHT, draw_choice),
        Panel("Monarch", "must it be of low rank?", LOWER_RIGHT, draw_blocks),
    ]
    arrows = [
        Arrow(ACROSS_TOP, "two rates", (0.497, 0.83)),
        Arrow(SLANTED, "the best\nstep", (0.415, 0.665)),
        Arrow(DOWN_TOP, "size, then direction", (0.77, 0.66)),
        Arrow(((0.555, 0.475), (0.445, 0.475)), "after the\nfirst step", (0.50, 0.515)),
        Arrow(DOWN_BOTTOM, "another structure", (0.77, 0.335)),
    ]
    thread = (
        "The common thread: a large matrix\nis stored and moved through small\n"
        "ones. Which of its changes can they\nfollow, and from where?"
    )
    return draw_map(panels, arrows, thread)


def _gradient(n: int = 24, m: int = 18) -> torch.Tensor:
    """A gradient whose singular values fall slowly."""
    draw = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(n, m, generator=draw, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(m, m, generator=draw, dtype=torch.float64)).Q
    return U * 0.88 ** torch.arange(m, dtype=torch.float64) @ V


def draw_spectra(axes: Axes) -> None:
    """Singular values of a gradient 24 × 18, and of what LoRA of rank 3 makes of it: six are not zero."""
    G, draw = _gradient(), torch.Generator().manual_seed(1)
    A = torch.linalg.qr(torch.randn(24, 3, generator=draw, dtype=torch.float64)).Q
    B = torch.linalg.qr(torch.randn(18, 3, generator=draw, dtype=torch.float64)).Q.mT
    left = equivalent_gradient(*lora_gradients(G, A, B), A, B)
    places = torch.arange(18)
    axes.bar(places - 0.2, torch.linalg.svdvals(G), width=0.4, color=BLUE)
    axes.bar(places + 0.2, torch.linalg.svdvals(left), width=0.4, color=ORANGE)


def draw_valley(axes: Axes) -> None:
    """Loss after fine-tuning by the size of the factor that is not zero: zero B, and zero A (dashed)."""
    content, _ = load("matrices/lora_plus")
    for side, colour, style in (("B 256", BLUE, "-"), ("A 256", ORANGE, "--")):
        rows = content["sizes"][side]
        means = [sum(row["losses"]) / len(row["losses"]) for row in rows.values()]
        axes.semilogx([float(size) for size in rows], means, color=colour, ls=style, lw=2, marker="o", ms=4)
    axes.set_ylim(0)
    axes.minorticks_off()


def draw_choice(axes: Axes) -> None:
    """A gradient's singular values: LoRA-GA gives the first r to A and the next r to B."""
    values = torch.linalg.svdvals(_gradient())
    axes.bar(range(3), values[:3], color=BLUE)
    axes.bar(range(3, 6), values[3:6], color=ORANGE)
    axes.bar(range(6, 18), values[6:], color="#BFBFBF")


def draw_ways(axes: Axes) -> None:
    """Distance from full descent on a quadratic by step: LoRA with SGD (dashed), and LoRA-Pro."""
    target = _gradient()
    U, _, Vh = torch.linalg.svd(-target, full_matrices=False)
    start = U[:, :3], Vh[3:6]
    for pro, colour, style in ((False, BLUE, "--"), (True, ORANGE, "-")):
        A, B = (torch.nn.Parameter(0.5 * factor.clone()) for factor in start)
        base = -(A @ B).detach()
        optimizer = LoRAProSGD([LoRAPair(A, B, 1.0)], lr=0.1) if pro else torch.optim.SGD([A, B], lr=0.1)
        full, gaps = torch.zeros_like(target), []
        for _ in range(30):
            optimizer.zero_grad()
            ((base + A @ B - target).square().sum() / 2).backward()
            optimizer.step()
            full = full - 0.1 * (full - target)
            gaps.append(((base + A @ B).detach() - full).norm() / full.norm())
        axes.plot(gaps, color=colour, ls=style, lw=2)
    axes.set_ylim(0)


def draw_blocks(axes: Axes) -> None:
    """The two block-diagonal factors of a Monarch matrix of size 16, the second one between two shuffles."""
    R = block_diag_dense(torch.ones(4, 4, 4))
    shuffle = torch.eye(16)[monarch_permutation(16, 4)]
    L = shuffle @ R @ shuffle.mT
    gap = torch.zeros(16, 4)
    axes.imshow(torch.cat([L, gap, 2 * R], 1), cmap="Blues", vmin=0, vmax=2.6, aspect="equal")
    for edge in (-0.5, 19.5):
        axes.add_patch(plt.Rectangle((edge, -0.5), 16, 16, fill=False, color="#4D4D4D", lw=1))
    for spine in axes.spines.values():
        spine.set_visible(False)


def matrices_comparison() -> Figure:
    """Return the training losses of all methods at their best rates, sixteen seeds each, Adam above and SGD below."""
    content, _ = load("matrices/lora_comparison")
    figure, every = plt.subplots(2, 1, figsize=(7.0, 7.4), layout="constrained", height_ratios=(9, 7))
    for axes, optimizer in zip(every, ("Adam", "SGD")):
        methods = list(content["runs"][f"{optimizer} 4"])
        for shift, rank, colour, marker in ((-0.15, 4, PALETTE[0], "o"), (0.15, 1, PALETTE[1], "s")):
            rows = content["runs"][f"{optimizer} {rank}"]
            values = torch.tensor([rows[method]["train_loss"] for method in methods])
            places = torch.arange(len(methods)) + shift
            error = values.std(1) / values.shape[1] ** 0.5
            style = {"color": colour, "fmt": marker, "ms": 5, "capsize": 3, "label": f"rank {rank}"}
            axes.errorbar(values.mean(1), places, xerr=error, **style)
        axes.set_yticks(range(len(methods)), methods)
        axes.invert_yaxis()
        ticks = (0.05, 0.1, 0.2, 0.5, 1, 2)
        axes.set(title=optimizer, xscale="log", xlim=(0.05, 2.3))
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    every[0].legend()
    every[1].set(xlabel="training loss after 100 steps, nats")
    return figure
