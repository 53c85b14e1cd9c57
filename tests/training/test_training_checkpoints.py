"""Checkpoints of the training loop: what resumes gives the same bits, what does not belong together is refused."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from training.test_training import adam, draw, network, squared, weights

from kexue_lib.data import minibatches
from kexue_lib.training import fit, process_generator, warmup_cosine
from kexue_lib.training._checkpoint import FILE, read_checkpoint, write_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("cut", [4, 5])
def test_resumed_equals_uninterrupted(tmp_path, accumulate, cut):
    x, y = draw(process_generator(9), 50)

    def run(steps, **more):
        sample = minibatches(x, y, batch_size=7)
        options = {"optimizer": adam, "schedule": warmup_cosine(12, warmup=3), "ema": 0.8, "clip_norm": 1.0, **more}
        return fit(network(dropout=0.2), squared, sample, steps=steps, accumulate=accumulate, seed=3, **options)

    whole = run(12)
    run(cut, checkpoint=tmp_path)
    rest = run(12, checkpoint=tmp_path)
    assert torch.equal(weights(whole.model), weights(rest.model))
    assert torch.equal(weights(whole.ema), weights(rest.ema))
    assert {k: v.tolist() for k, v in whole.history.items()} == {k: v.tolist() for k, v in rest.history.items()}
    with pytest.warns(UserWarning, match="already finished at step 12"):
        again = run(12, checkpoint=tmp_path)
    assert torch.equal(weights(again.model), weights(whole.model))
    fresh = run(2, checkpoint=tmp_path, resume=False)
    assert fresh.steps == 2


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("seed", {"seed": 1}),
        ("model", {"width": 9}),
        ("accumulate", {"accumulate": 2}),
        ("ema", {"ema": 0.5}),
        ("clip_norm", {"clip_norm": 1.0}),
        ("precision", {"precision": "bf16"}),
        ("schedule", {"schedule": warmup_cosine(4)}),
        ("loss", {"loss": lambda m, b: 2 * squared(m, b)}),
        ("options", {"optimizer": lambda p: torch.optim.Adam(p, lr=0.5)}),
        ("optimizer", {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}),
        ("steps.*step 2", {"steps": 1}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, what, change):
    def run(**options):
        options = {"loss": squared, "optimizer": adam, **options}
        model = network(width=options.pop("width", 8))
        return fit(model, sample=draw, checkpoint=tmp_path, **options)

    run(steps=2)
    with pytest.raises(ValueError, match=f"{what}.*resume=False"):
        run(**{"steps": 4, **change})
    assert run(steps=3).steps == 3


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:900] + b"x" + b[901:]])
def test_a_damaged_checkpoint_is_named_with_the_cure(tmp_path, damage):
    run = lambda **options: fit(network(), squared, draw, optimizer=adam, steps=2, checkpoint=tmp_path, **options)
    run()
    file = tmp_path / "state.pt"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"state\.pt is damaged .*resume=False") as caught:
        run()
    assert "weights_only" not in str(caught.value)
    assert run(resume=False).steps == 2


def test_a_compiled_model_and_a_plain_one_resume_each_other(tmp_path):
    def run(steps, compiled):
        model = network()
        trained = torch.compile(model, backend="eager") if compiled else model
        return weights(fit(trained, squared, draw, optimizer=adam, steps=steps, checkpoint=tmp_path, ema=0.5).model)

    run(2, True)
    mixed = run(4, False)
    run(6, True)
    torch.testing.assert_close(mixed, weights(fit(network(), squared, draw, optimizer=adam, steps=4, ema=0.5).model))


def test_the_state_of_a_sampler_comes_back_with_its_arrays(tmp_path):
    class Sampler:
        def __init__(self):
            self.state = {"order": np.arange(5)[::-1], "at": np.int64(0)}

        def __call__(self, generator):
            self.state["at"] += 1
            self.state["order"] = np.roll(self.state["order"], 1)
            return draw(generator)

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    first, second = Sampler(), Sampler()
    fit(network(), squared, first, optimizer=adam, steps=2, checkpoint=tmp_path)
    fit(network(), squared, second, optimizer=adam, steps=3, checkpoint=tmp_path)
    assert second.state["at"] == 3
    assert second.state["order"].tolist() == [2, 1, 0, 4, 3]
    second.state["more"] = {"odd": object()}
    with pytest.raises(TypeError, match=r"sample\.state_dict\(\)\['more'\]\['odd'\]: got object"):
        fit(network(), squared, second, optimizer=adam, steps=1, checkpoint=tmp_path / "other")


def test_a_kill_between_write_and_move_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    fit(network(), squared, draw, optimizer=adam, steps=3, checkpoint=tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), squared, draw, optimizer=adam, steps=6, checkpoint=tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    monkeypatch.undo()
    whole = fit(network(), squared, draw, optimizer=adam, steps=6)
    resumed = fit(network(), squared, draw, optimizer=adam, steps=6, checkpoint=tmp_path)
    assert torch.equal(weights(whole.model), weights(resumed.model))
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"checkpoint: could not write.*none before it"):
        fit(network(), squared, draw, optimizer=adam, steps=1, checkpoint=tmp_path / "file" / "run")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files with Linux's ulimit")
def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(tmp_path):
    write_checkpoint(tmp_path, {"step": 1})
    code = (
        "import resource, signal, torch\n"
        "from kexue_lib.training._checkpoint import write_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"print(write_checkpoint({str(tmp_path)!r}, {{'step': 2, 'x': torch.zeros(10**6)}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "checkpoint: could not write" in done.stdout, done.stderr
    assert "the checkpoint before it is whole" in done.stdout
    assert read_checkpoint(tmp_path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


KILLS = textwrap.dedent(
    """
    # One process imports everything once; each life of the run is a fork of it, so that twenty lives take seconds.
    import json, os, random, signal, sys, time
    import torch
    sys.path.insert(0, {tests!r})
    from training.test_training_checkpoints import adam, draw, minibatches, network, process_generator, squared, weights
    from kexue_lib.training import fit, warmup_cosine
    from kexue_lib.training._checkpoint import FILE, read_checkpoint

    def life(folder):
        pid = os.fork()
        if pid:
            return pid
        x, y = draw(process_generator(9), 50)
        out = fit(network(dropout=0.2), squared, minibatches(x, y, batch_size=7), optimizer=adam, steps=600,
                  schedule=warmup_cosine(600), ema=0.9, seed=3, log_every=50, checkpoint=folder, checkpoint_every=6)
        torch.save((weights(out.model), weights(out.ema), out.history["loss"]), folder + ".pt")
        os._exit(0)

    begin = time.perf_counter()
    os.waitpid(life("whole"), 0)
    whole = time.perf_counter() - begin
    moments, steps, kills = random.Random(0), [], 0
    while kills < 20 and not os.path.exists("killed.pt"):
        file = os.path.join("killed", FILE)
        before = os.stat(file).st_mtime_ns if os.path.exists(file) else 0
        pid = life("killed")
        # Wait until this life has written something, then kill it at a random moment of what follows, which lasts a
        # little longer than from one checkpoint to the next: a hundred make the whole, so twenty lives cannot end it.
        while not os.path.exists(file) or os.stat(file).st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, whole / 80))
        os.kill(pid, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        steps.append(read_checkpoint("killed")["step"])  # whole after every kill
    os.waitpid(life("killed"), 0)
    same = all(torch.equal(a, b) for a, b in zip(torch.load("whole.pt"), torch.load("killed.pt")))
    print(json.dumps({{"kills": kills, "steps": steps, "same": same}}))
    """
)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
@pytest.mark.timeout(300)
def test_twenty_hard_kills_at_random_moments_change_no_bit(tmp_path):
    script = tmp_path / "kills.py"
    script.write_text(KILLS.format(tests=str(ROOT / "tests")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 20
    assert result["steps"] == sorted(result["steps"])
    assert 0 < result["steps"][0] < result["steps"][-1] < 600
    assert result["same"]
