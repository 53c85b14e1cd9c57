"""The table for an accelerator: what is compared computes the same, and without a card nothing is stored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.parent
SAME = ("linear_cross_entropy", "attention_stats", "rerope_attention", "linear_scan")  # the others' peers are a scale


def test_ours_and_the_peer_compute_the_same():
    sys.path.insert(0, str(ROOT))
    from benchmarks.device import Bench

    found = []
    for case in Bench("cpu", 32).cases():
        name = case.title.split(",")[0]
        if name in SAME:
            ours, peer = case.ours(), case.peer()
            pairs = zip(ours, peer) if isinstance(ours, tuple) and isinstance(peer, tuple) else [(ours, peer)]
            for one, other in pairs:
                scale = other.float().abs().max().item()
                torch.testing.assert_close(one.float(), other.float(), rtol=0.05, atol=0.02 * scale)
            found.append(name)
    assert sorted(found) == sorted(SAME)


def test_without_a_card_the_table_is_left_alone():
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.device"]
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=True)
    assert "no CUDA device" in done.stdout
