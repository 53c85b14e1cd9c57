"""The pictures of the book take what chapters have, tensors on any device, and refuse what they cannot draw."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from kexue_lib import plotting

LABELS = {"title": "t", "xlabel": "x", "ylabel": "y"}


def contrast(a: str, b: str) -> float:
    def luminance(colour):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_palette_has_eight_colours_visible_on_white():
    assert len(set(plotting.PALETTE)) == 8
    assert min(contrast(c, "#FFFFFF") for c in plotting.PALETTE) > 2.0


def test_lines_of_one_figure_differ_in_dash_too():
    plotting.use_style()
    ax = plotting.lines([0, 1], {str(i): [0, i] for i in range(8)}, **LABELS)
    assert len({(line.get_linestyle(), line.get_color()) for line in ax.lines}) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_with_gradients_are_drawn(dtype):
    y = torch.ones(3, dtype=dtype, requires_grad=True)
    ax = plotting.lines(torch.arange(3), {"a": y, "b": 2 * y}, bands={"a": (y - 1, y + 1)}, logy=True, **LABELS)
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [2, 2, 2])
    assert len(ax.collections) == 1


def test_bars_carry_their_values():
    ax = plotting.bars({"a": {"u": 1.5, "v": 2.0}, "b": {"u": 3.0, "v": 4.0}}, **LABELS)
    assert [p.get_height() for p in ax.patches] == [1.5, 2, 3, 4]
    assert "1.5" in {t.get_text() for t in ax.texts}
    with pytest.raises(ValueError, match="groups"):
        plotting.bars({"a": {"u": 1.0}, "b": {"v": 1.0}}, **LABELS)


def test_heatmap_hatches_what_is_not_finite_and_centres_its_colours():
    ax = plotting.heatmap([[1.0, float("nan")], [-3.0, 0.0]], rows="ab", columns="cd", centre=0.0, **LABELS)
    assert sum(p.get_hatch() == "///" for p in ax.patches) == 1
    assert ax.collections[0].get_clim() == (-3.0, 3.0)
    with pytest.raises(ValueError, match="matrix"):
        plotting.heatmap([[1.0]], rows="ab", columns="c", **LABELS)


def test_histogram_integrates_to_one():
    ax = plotting.histogram(torch.randn(1000), title="t", xlabel="x", density=lambda x: np.exp(-x * x / 2))
    assert sum(p.get_height() * p.get_width() for p in ax.patches) == pytest.approx(1)


@pytest.mark.parametrize("name", ["samples", "reference"])
def test_points_refuses_what_is_not_planar(name):
    arguments = {"samples": torch.zeros(4, 2), "reference": torch.zeros(4, 2), name: torch.zeros(4, 3)}
    with pytest.raises(ValueError, match=name):
        plotting.points(title="t", **arguments)


def test_field_draws_one_arrow_per_grid_point():
    ax = plotting.field(lambda x: -x, limits=(-1.0, 1.0, -2.0, 2.0), title="t", resolution=5)
    assert ax.collections[0].N == 25


def test_functions_draw_where_they_are_told():
    _, (left, right) = plt.subplots(1, 2)
    assert plotting.lines([0, 1], {"a": [0, 1]}, ax=left, **LABELS) is left
    assert not right.lines


def test_table_shows_the_same_cells_in_every_form():
    shown = plotting.table([["a|b <c>", torch.tensor(1 / 3), 2], ["d", 1e-9, 3]], ["name", "x", "n"])
    assert shown.cells == [["a|b <c>", "0.3333", "2"], ["d", "1e-09", "3"]]
    assert "a\\|b" in shown._repr_markdown_()
    assert "a|b &lt;c&gt;" in shown._repr_html_()
    assert shown.numeric == [False, True, True]
    with pytest.raises(ValueError, match="rows"):
        plotting.table([["a"]], ["x", "y"])


def test_style_starts_no_shell_in_a_plain_script():
    """A shell would make every checked step print its card."""
    code = "import IPython; from kexue_lib.plotting import use_style; use_style(); print(IPython.get_ipython())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
