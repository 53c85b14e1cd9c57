"""The part's comparison: the page's table is the stored file's, and the file is what its script finds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.matrices import lora_comparison

PAGE = Path(__file__).resolve().parents[2] / "chapters" / "matrices" / "index.md"


def said(values: np.ndarray, sign: str = "") -> str:
    return f"{values.mean():{sign}.3f} ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_the_pages_table_is_the_stored_one(optimizer: str) -> None:
    content, _ = load("matrices/lora_comparison")
    page = PAGE.read_text(encoding="utf-8").split(f"|{optimizer},")[1].split("\n\n")[0]
    rows = {cells[1]: cells[2:-1] for line in page.splitlines()[2:] if len(cells := line.split("|")) > 3}
    assert list(rows) == list(content["runs"][f"{optimizer} 4"])
    for method, cells in rows.items():
        expected = []
        for rank in (1, 4):
            table = content["runs"][f"{optimizer} {rank}"]
            losses, best = (np.array(table[name]["train_loss"]) for name in (method, "LoRA-GA"))
            accuracy = 100 * np.mean(table[method]["test_accuracy"])
            difference = "" if method == "LoRA-GA" else said(losses - best, "+")
            expected += [f"{table[method]['rate']:g}", said(losses), difference, f"{accuracy:.1f}"]
        assert cells == expected, method


@pytest.mark.parametrize(("optimizer", "method"), [("Adam", "LoRA-GA"), ("SGD", "LoRA-GA + LoRA-Pro")])
def test_a_stored_run_again(optimizer: str, method: str) -> None:
    content, _ = load("matrices/lora_comparison")
    stored = content["runs"][f"{optimizer} 4"][method]
    again = lora_comparison.fine_tuned(optimizer, method, 4, stored["rate"], lora_comparison.COMPARING[0])
    # Other processors sum in another order, and a hundred steps enlarge that.
    assert again.train_loss == pytest.approx(stored["train_loss"][0], rel=0.2)


def test_every_rate_is_inside_its_grid() -> None:
    content, _ = load("matrices/lora_comparison")
    for name, table in content["runs"].items():
        rates = content["rates"][name.split()[0]]
        for method, row in table.items():
            tried = [rate for rate, mean in zip(rates, row["sweep"]) if mean is not None]
            inside = row["rate"] < rates[-1] and row["rate"] > rates[0]
            assert inside, (name, method, re.sub(r"\s+", " ", str(tried)))
