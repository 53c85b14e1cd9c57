"""Draw how the chapters of a part hang together: one small picture of each, made by its own functions, and arrows.

Run ``python tools/draw_part_maps.py`` after a change; the drawings are committed in ``_static/maps``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from generative_map import generative
from map_layout import (
    ACROSS_TOP,
    BACK_ACROSS,
    BLUE,
    DOWN_BOTTOM,
    DOWN_LEFT,
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
from matrices_map import matrices, matrices_comparison
from recurrence_map import recurrence

from kexue_lib.attention.decoder_only import attention_matrix, head_masks
from kexue_lib.attention.mla import AttentionConfig, kv_cache_elements
from kexue_lib.attention.nbce import nbce_logits
from kexue_lib.attention.softmax_robustness import (
    attention_average,
    effective_number,
    noise_cv2,
    perturbed_attention,
)
from kexue_lib.attention.tied_embedding import expected_initial_loss
from kexue_lib.checkpoints import load
from kexue_lib.distributions.fourier_density import FourierDensity
from kexue_lib.distributions.smooth_topk import grad_topk
from kexue_lib.distributions.softmax_alternatives import entmax
from kexue_lib.distributions.squareplus import squareplus
from kexue_lib.optimization.amos_recipes import decay_factor, kappa_from_half_life
from kexue_lib.optimization.scaling_law import quantized_loss
from kexue_lib.optimization.sgd_convergence import optimal_constant_lr, optimal_sqrt_scale, regret_bound
from kexue_lib.plotting import MARKERS, PALETTE, use_style
from kexue_lib.positions.rerope import rectified_distance
from kexue_lib.positions.rope import inverse_frequencies
from kexue_lib.positions.rope_base_bound import similarity_gap
from kexue_lib.positions.rope_bias import rotary_kernel, sandwich_biases

MAPS = Path(__file__).resolve().parent.parent / "_static" / "maps"
SCORES = torch.tensor([0.3, 1.6, -0.7, 2.1, 0.9, -1.4, 1.9, 0.1], dtype=torch.float64)


def main() -> None:
    """Write one PNG for each drawing."""
    use_style()
    MAPS.mkdir(exist_ok=True)
    for part, draw in DRAWINGS.items():
        draw().savefig(MAPS / f"{part}.png", dpi=130, facecolor="white")


# --- distributions ----------------------------------------------------------------------------------------------------


def distributions() -> Figure:
    """Return the map of the part on distributions: from one score to a whole curve."""
    panels = [
        Panel("Squareplus", "one score: a soft corner", UPPER_LEFT, draw_squareplus),
        Panel("Softmax and its substitutes", "choose 1 of n", UPPER_RIGHT, draw_substitutes),
        Panel("Sparsity", "how many entries count?", LEFT, draw_lorenz),
        Panel("Smooth top-k", "choose k of n", RIGHT, draw_topk),
        Panel("Fourier density", "choose among all real numbers", LOWER_RIGHT, draw_density),
    ]
    arrows = [
        Arrow(ACROSS_TOP, "relu(x − λ)\nper entry", (0.497, 0.84)),
        Arrow(DOWN_TOP, "k instead of 1", (0.77, 0.66)),
        Arrow(SLANTED, "what does\nit select?", (0.415, 0.665)),
        Arrow(BACK_ACROSS, "effective\nnumber k", (0.50, 0.515)),
        Arrow(DOWN_BOTTOM, "a line of entries", (0.77, 0.335)),
    ]
    thread = (
        "The common thread: a hard choice\n(a corner, a maximum, a selection,\na histogram) becomes a smooth map\n"
        "that is normalised exactly and can be\ntrained by its gradient."
    )
    return draw_map(panels, arrows, thread)


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


# --- attention --------------------------------------------------------------------------------------------------------


def attention() -> Figure:
    """Return the map of the part on attention: what a query sees, what is kept of it, and what is said at the end."""
    panels = [
        Panel("Robustness and information", "what does an average keep?", UPPER_LEFT, draw_noise),
        Panel("Why decoder-only?", "which keys may a query see?", UPPER_RIGHT, draw_masks),
        Panel("NBCE", "many texts, one answer", LEFT, draw_pools),
        Panel("MHA, MQA, GQA, MLA", "what must be remembered?", RIGHT, draw_caches),
        Panel("Tied embedding", "what comes out at the end?", LOWER_RIGHT, draw_first_loss),
    ]
    arrows = [
        Arrow(ACROSS_TOP, "a mask for\nevery query", (0.497, 0.84)),
        Arrow(DOWN_TOP, "causal: keys\ncan be cached", (0.77, 0.66)),
        Arrow(DOWN_LEFT, "entropy picks\nthe passage", (0.27, 0.66)),
        Arrow(BACK_ACROSS, "one cache\nper text", (0.50, 0.515)),
        Arrow(DOWN_BOTTOM, "the last state", (0.77, 0.335)),
    ]
    thread = (
        "The common thread: a token is written\nfrom a weighted average of what came\nbefore. "
        "How sharp the weights are,\nwhat they may reach and what is kept\nin memory decide what it can say."
    )
    return draw_map(panels, arrows, thread)


def draw_noise(axes: Axes) -> None:
    """Errors of noisy averages against the effective number of keys, and the law that they follow."""
    generator = torch.Generator().manual_seed(0)
    kinds = {"dtype": torch.float64, "generator": generator}
    sizes, errors = [], []
    for n in (32, 128, 512, 2048, 8192):
        for sharpness in (0.3, 1.0, 1.6):
            scores = sharpness * torch.randn(n, **kinds)
            values = torch.randn(n, 16, **kinds)
            noisy = perturbed_attention(scores, values, 0.5, num_samples=60, generator=generator)
            sizes.append(effective_number(scores).item())
            errors.append((noisy - attention_average(scores, values)).square().mean().sqrt().item())
    law = torch.tensor([min(sizes), max(sizes)])
    axes.loglog(sizes, errors, "o", color=BLUE, ms=5)
    axes.loglog(law, (noise_cv2("gaussian", 0.5) / law).sqrt(), color=ORANGE, lw=2, ls="--")
    axes.minorticks_off()


def draw_masks(axes: Axes) -> None:
    """Attention of sixteen tokens on themselves, everywhere and only back in time."""
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 16, 8, generator=generator)
    pair = [attention_matrix(q, k, mask=head_masks(kind, 16)[0]) for kind in ("bidirectional", "causal")]
    axes.imshow(
        torch.cat((pair[0], torch.full((16, 3), torch.nan), pair[1]), dim=1).sqrt(), cmap="Blues", aspect="auto"
    )
    for side in axes.spines.values():
        side.set_visible(False)


def draw_pools(axes: Axes) -> None:
    """Next tokens after three passages, one of them certain, and their combination."""
    passages = torch.tensor(
        [[0.3, 0.5, 0.1, 0.6, 0.2, 0.4], [0.2, 0.4, 0.3, 0.5, 4.0, 0.3], [0.5, 0.2, 0.4, 0.1, 0.3, 0.6]]
    )
    merged = nbce_logits(passages, torch.zeros(6), top_p=None).logits.softmax(-1)
    for row, p in enumerate([*passages.softmax(-1), merged]):
        last = row == len(passages)
        axes.bar(torch.arange(6) + 7.5 * row, p, width=0.8, color=ORANGE if last else BLUE)


def draw_caches(axes: Axes) -> None:
    """Numbers kept for each token and layer, 128 heads of width 128: MHA, eight groups, MLA of DeepSeek-V3, MQA."""
    heads = {"d_model": 7168, "n_heads": 128, "head_dim": 128}
    latent = AttentionConfig(**heads, kind="mla", kv_rank=512, rope_dim=64)
    shared = [AttentionConfig(**heads, kind="gqa", n_kv_heads=8), latent, AttentionConfig(**heads, kind="mqa")]
    sizes = [kv_cache_elements(config) for config in (AttentionConfig(**heads), *shared)]
    bars = axes.barh(range(4), sizes, color=[BLUE, BLUE, ORANGE, BLUE])
    axes.bar_label(bars, [f"{name} {size:,}" for name, size in zip(("MHA", "GQA-8", "MLA", "MQA"), sizes)], padding=3)
    axes.set(xscale="log", xlim=(100, 3e6))
    axes.minorticks_off()
    axes.invert_yaxis()


def draw_first_loss(axes: Axes) -> None:
    """The first loss of a tied model against the width of its weights; log n is the dashed line."""
    widths = torch.logspace(-2.5, 0, 40, dtype=torch.float64)
    losses = [expected_initial_loss(32000, 512, float(s), scheme="tied") for s in widths]
    axes.loglog(widths, losses, color=BLUE, lw=2)
    axes.axhline(math.log(32000), color=ORANGE, lw=2, ls="--")
    axes.minorticks_off()


# --- optimization -----------------------------------------------------------------------------------------------------


def optimization() -> Figure:
    """Return the map of the part on optimization: what is known of one update θ ← θ − ηu."""
    panels = [
        Panel("Gradient flow", "which way is steepest?", UPPER_LEFT, draw_paths),
        Panel("SGD", "how far from the best loss?", UPPER_RIGHT, draw_bounds),
        Panel("Amos", "how long is a step?", LEFT, draw_decay),
        Panel("Lion", "what is u made of?", RIGHT, draw_past),
        Panel("Scaling laws", "what is left in the end?", LOWER_RIGHT, draw_quanta),
    ]
    arrows = [
        Arrow(ACROSS_TOP, "steps, noise", (0.497, 0.83)),
        Arrow(DOWN_LEFT, "lengths", (0.27, 0.66)),
        Arrow(DOWN_TOP, "directions", (0.77, 0.66)),
        Arrow(BACK_ACROSS, "both rates", (0.50, 0.505)),
        Arrow(DOWN_BOTTOM, "many steps", (0.77, 0.335)),
    ]
    thread = (
        "The common thread: one update,\n$\\theta\\leftarrow\\theta-\\eta\\,u$. What is u, how long\n"
        "is η, and what does a training of\nmany such steps leave?"
    )
    return draw_map(panels, arrows, thread)


def draw_paths(axes: Axes) -> None:
    """Two ways down the valley x²/2 + 4y²: steepest in the Euclidean norm, and in the largest coordinate."""
    x, y = torch.meshgrid(torch.linspace(-0.4, 2.4, 80), torch.linspace(-0.7, 1.3, 80), indexing="xy")
    axes.contour(x, y, (x**2 / 2 + 4 * y**2), levels=[0.05, 0.3, 1, 2.5, 5], colors="#BBBBBB", linewidths=1)
    time = torch.linspace(0, 6, 200)
    axes.plot(2 * (-time).exp(), (-8 * time).exp(), color=BLUE, lw=2)
    axes.plot((2 - time).clamp(min=0), (1 - time).clamp(min=0), color=ORANGE, lw=2, ls="--")


def draw_bounds(axes: Axes) -> None:
    """The bound on the average regret by the number of steps, for the best constant rate and for α/√t; D = G = 1."""
    many = [2**n for n in range(1, 13)]
    constant = [regret_bound(torch.full((n,), optimal_constant_lr(1.0, 1.0, n)), 1.0, 1.0) for n in many]
    scale = optimal_sqrt_scale(1.0, 1.0)
    falling = [regret_bound(scale / torch.arange(1, n + 1).sqrt(), 1.0, 1.0) for n in many]
    for bound, colour, style in ((constant, BLUE, "-"), (falling, ORANGE, "--")):
        axes.loglog(many, [float(x) for x in bound], color=colour, ls=style, lw=2)
    axes.minorticks_off()


def draw_decay(axes: Axes) -> None:
    """The factors 1/(1 + κt) and its square with a half-life of 100 steps."""
    t = torch.arange(1, 10_001)
    for mode, colour, style in (("inverse_time", BLUE, "-"), ("inverse_square", ORANGE, "--")):
        axes.loglog(t, decay_factor(t, kappa_from_half_life(100.0, mode), mode), color=colour, ls=style, lw=2)
    axes.minorticks_off()


def draw_past(axes: Axes) -> None:
    """The weights of the last 24 gradients in Lion's update, and in a momentum of 0.9."""
    j = torch.arange(24)
    lion = torch.where(j == 0, 0.1, 0.9 * 0.01 * 0.99 ** (j - 1.0))
    axes.bar(j, 0.1 * 0.9**j, width=0.8, color=ORANGE, alpha=0.45)
    axes.bar(j, lion, width=0.8, color=BLUE)


def draw_quanta(axes: Axes) -> None:
    """The loss that is left when n of the skills are learned, for γ = 0.4 and 1."""
    n = torch.logspace(0, 5, 60, dtype=torch.float64).round()
    for gamma, colour, style in ((0.4, BLUE, "-"), (1.0, ORANGE, "--")):
        axes.loglog(n, quantized_loss(n, gamma), color=colour, ls=style, lw=2)
    axes.minorticks_off()


# --- positions --------------------------------------------------------------------------------------------------------


def positions() -> Figure:
    """Return the map of the part on positions: what a model knows of a distance it was not trained on."""
    panels = [
        Panel("RoPE as digits", "which digits are known?", UPPER_LEFT, draw_digits),
        Panel("ReRoPE", "which distances are known?", UPPER_RIGHT, draw_distances),
        Panel("The base", "how far does a copy stand out?", LEFT, draw_gap),
        Panel("Biases", "a kernel of the distance", RIGHT, draw_kernel),
        Panel("All on one model", "accuracy against length", LOWER_RIGHT, draw_text_curves),
    ]
    arrows = [
        Arrow(ACROSS_TOP, "change the\ndistance", (0.497, 0.84)),
        Arrow(DOWN_LEFT, "the slowest digit", (0.27, 0.66)),
        Arrow(DOWN_TOP, "near tokens first", (0.77, 0.66)),
        Arrow(BACK_ACROSS, "the same\ncosines", (0.50, 0.515)),
        Arrow(DOWN_BOTTOM, "measured", (0.77, 0.335)),
    ]
    thread = (
        "The common thread: a score sees the\ndistance r as a sum of cosines. Beyond\n"
        "the trained length, either the cosines\nor the distance have to be kept inside\nwhat training has seen."
    )
    return draw_map(panels, arrows, thread)


def draw_digits(axes: Axes) -> None:
    """Three pairs of a rotary embedding over 512 positions; orange is what training on 64 has seen."""
    m = torch.arange(512, dtype=torch.float64)
    for row, theta in enumerate((0.25, 0.05, 0.01)):
        axes.plot(m, (m * theta).cos() - 2.6 * row, color=BLUE, lw=1, ls="-")
        axes.plot(m[:64], (m[:64] * theta).cos() - 2.6 * row, color=ORANGE, lw=2.5, ls="-")


def draw_distances(axes: Axes) -> None:
    """The distance that a score sees, against the true one: as trained, compressed, clipped."""
    r = torch.arange(256, dtype=torch.float64)
    for distance, colour, style in (
        (r, "#4D4D4D", ":"),
        (rectified_distance(r, 32, 8.0), BLUE, "--"),
        (rectified_distance(r, 32), ORANGE, "-"),
    ):
        axes.plot(r, distance, color=colour, ls=style, lw=2)
    axes.set(ylim=(-4, 100))


def draw_gap(axes: Axes) -> None:
    """How much more a copy of the query scores than noise, by distance, for the bases 10⁴ and 5·10⁵, d = 128."""
    m = torch.logspace(0, 5, 400, dtype=torch.float64).round()
    for base, colour, style in ((1e4, BLUE, "-"), (5e5, ORANGE, "--")):
        axes.semilogx(m, similarity_gap(m, base, 128), color=colour, ls=style, lw=1.5)
    axes.axhline(0, color="#4D4D4D", lw=1)
    axes.minorticks_off()


def draw_kernel(axes: Axes) -> None:
    """The kernel of equal biases on all cosines, by distance, d = 64."""
    r = torch.arange(256, dtype=torch.float64)
    a, b = sandwich_biases(64, 1.0, dtype=torch.float64)
    axes.plot(r, rotary_kernel(a, b, r, inverse_frequencies(64)), color=BLUE, lw=2)
    axes.axhline(0, color="#4D4D4D", lw=1)


def draw_text_curves(axes: Axes) -> None:
    """Accuracy on text of RoPE as trained and of ReRoPE, means of three seeds."""
    content, _ = load("positions/comparison")
    for method, colour, style in (("RoPE as trained", BLUE, "-"), ("ReRoPE, w = 32, log n", ORANGE, "--")):
        mean = torch.tensor(content["curves"]["text"][method]).mean(1)
        axes.semilogx(content["lengths"], mean, color=colour, ls=style, lw=2, marker="o", ms=4)
    axes.minorticks_off()


def positions_comparison() -> Figure:
    """Return the accuracies of all methods of the part: text above, a repeated passage below, three seeds each."""
    content, _ = load("positions/comparison")
    names = {"text": "Text", "rep96": "A passage of 96 bytes that repeats"}
    figure, every = plt.subplots(2, 1, figsize=(7.0, 8.6), sharex=True, layout="constrained")
    for axes, (kind, title) in zip(every, names.items()):
        for i, (method, rows) in enumerate(content["curves"][kind].items()):
            values = 100 * torch.tensor(rows)
            again = i >= len(PALETTE)  # a colour that is there already gets hollow markers and a broken line
            style = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
            style |= {"mfc": "white", "ls": "--"} if again else {"ls": "-"}
            lengths = torch.tensor(content["lengths"]) * 2 ** (0.02 * (i - 4.5))  # error bars side by side
            error = values.std(1) / values.shape[1] ** 0.5
            axes.errorbar(lengths, values.mean(1), error, lw=1.5, ms=5, capsize=2, label=method, **style)
        axes.set_xscale("log", base=2)
        axes.set_xlim(content["lengths"][0] / 1.3, content["lengths"][-1] * 1.3)
        axes.set(title=title, ylabel="accuracy of the last bytes, %")
        axes.set_xticks(content["lengths"], [str(n) for n in content["lengths"]])
    every[1].set(xlabel="bytes that are read (trained on 64)")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


DRAWINGS: dict[str, Callable[[], Figure]] = {
    "distributions": distributions,
    "attention": attention,
    "positions": positions,
    "positions_comparison": positions_comparison,
    "optimization": optimization,
    "matrices": matrices,
    "matrices_comparison": matrices_comparison,
    "recurrence": recurrence,
    "generative": generative,
}

if __name__ == "__main__":
    main()
