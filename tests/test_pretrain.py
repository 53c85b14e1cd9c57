"""The pretraining script starts from a command line, learns, checkpoints, and goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kexue_lib.data import ngram_entropy, python_source
from kexue_lib.pretrain import parser, pretrain

ROOT = Path(__file__).resolve().parents[1]


def test_a_short_run_learns():
    result = pretrain(steps=60, batch_size=8, length=64, d_model=48, n_layers=1, evaluate_every=20, lr=1e-2, warmup=5)
    measured = result.history["validation"]
    measured = measured[measured.isfinite()]
    assert measured[-1] < measured[0]
    assert measured[-1] < ngram_entropy(python_source().train, 1) + 0.3


def test_every_option_of_the_command_line_is_one_of_the_function():
    options = vars(parser().parse_args([]))
    pretrain(**{**options, "steps": 1, "d_model": 16, "n_layers": 1, "batch_size": 1, "length": 8})


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]])
def test_it_starts_from_the_command_line_and_resumes(tmp_path, launcher):
    small = (
        "--d-model 16 --n-layers 1 --batch-size 2 --length 16 --warmup 1 --evaluate-every 2 --log-every 1 --device cpu"
    )
    command = [sys.executable, *launcher, "-m", "kexue_lib.pretrain", *small.split(), "--checkpoint", str(tmp_path)]
    for steps in ("2", "4"):
        done = subprocess.run(
            [*command, "--steps", steps],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("validation:") == 1
        assert done.stdout.startswith(f"{steps} steps in")
