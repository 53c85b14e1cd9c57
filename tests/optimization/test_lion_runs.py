"""Lion and Tiger inside the training loop: resumed, on two processes, sharded, compiled, captured."""

import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch
from opinfo import as_users_call
from optimization.test_lion import draw as tensors
from optimization.test_lion import make, run, same
from torch import nn
from training.test_training import draw, network, squared, weights

from kexue_lib.optimization.lion import Lion, Tiger
from kexue_lib.training import fit, warmup_cosine

ROOT = Path(__file__).resolve().parents[2]
MAKERS = {
    "lion": partial(Lion, lr=0.003, weight_decay=0.1),
    "cautious": partial(Lion, lr=0.003, cautious=True),
    "stochastic": partial(Lion, lr=0.003, rounding="stochastic"),
    "kahan": partial(Lion, lr=0.003, rounding="kahan"),
    "tensor rate": lambda p: Lion(p, lr=torch.tensor(0.003)),
    "float32 momentum": partial(Lion, lr=0.003, momentum_dtype=torch.float32),
    "tiger": partial(Tiger, lr=0.01, accumulation_steps=2, rounding="stochastic"),
}


def loss(model, batch):
    return squared(model, tuple(t.to(next(model.parameters()).dtype) for t in batch)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_run_has_the_bits_of_a_whole_one(tmp_path, name, dtype):
    def trained(steps, **more):
        model = network().to(dtype)
        schedule = warmup_cosine(9, warmup=2)
        with as_users_call():  # the loop notes a tensor rate, its annotation says float
            return fit(model, loss, draw, optimizer=MAKERS[name], schedule=schedule, steps=steps, seed=3, **more).model

    whole = trained(9)
    trained(5, checkpoint=tmp_path)
    assert torch.equal(weights(whole), weights(trained(9, checkpoint=tmp_path)))
    assert not torch.equal(weights(whole), weights(network().to(dtype)))


PROCESSES = textwrap.dedent(
    """
    import sys, torch, torch.distributed as dist
    sys.path.insert(0, {tests!r})
    from optimization.test_lion_runs import MAKERS, loss
    from training.test_training import draw, network, weights
    from kexue_lib.training import fit, warmup_linear
    found = {{}}
    for name in sys.argv[2].split(","):
        for dtype in (torch.float32, torch.bfloat16):
            def run(steps, **more):
                fit(network().to(dtype), loss, draw, optimizer=MAKERS[name], steps=steps, seed=7, device="cpu",
                    schedule=warmup_linear(8), **more)
            folder = sys.argv[1] + f"/{{name}}-{{dtype}}"
            run(6, checkpoint=folder + "-whole")
            run(3, checkpoint=folder + "-cut")
            run(6, checkpoint=folder + "-cut")
            own = network().to(dtype)
            result = fit(own, loss, draw, optimizer=MAKERS[name], steps=6, seed=7, device="cpu",
                         schedule=warmup_linear(8)).model
            shards = [p.to_local() if hasattr(p, "to_local") else p for p in result.parameters()]
            torch.save([p.detach() for p in shards], folder + f"-rank{{dist.get_rank()}}.pt")
    dist.destroy_process_group()
    """
)


def on_two_processes(folder, names, sharded):
    script = folder / "run.py"
    script.write_text(PROCESSES.format(tests=str(ROOT / "tests")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": str(sharded).lower()}
    done = subprocess.run(
        [*command, str(folder), ",".join(names)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def saved(folder, name, dtype, kind):
    return torch.load(folder / f"{name}-{dtype}-{kind}" / "state.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_agree_and_resume_to_the_same_bits(tmp_path, sharded):
    on_two_processes(tmp_path, MAKERS, sharded)
    for name in MAKERS:
        for dtype in (torch.float32, torch.bfloat16):
            whole, cut = (saved(tmp_path, name, dtype, kind)["model"] for kind in ("whole", "cut"))
            same(list(cut.values()), list(whole.values()))
            first, second = (torch.load(tmp_path / f"{name}-{dtype}-rank{rank}.pt") for rank in (0, 1))
            if sharded:
                parts = [torch.cat(pair) for pair in zip(first, second)]
                same(parts, list(whole.values()))
            else:  # replicas, also those that are rounded at random
                same(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Lion, Tiger])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_step_is_the_eager_one_and_a_tensor_rate_does_not_recompile(kind, dtype):
    torch.compiler.reset()
    params, others = make(dtype, [(3, 4), (5,)]), make(dtype, [(3, 4), (5,)])
    rates = [torch.tensor(0.25), torch.tensor(0.25)]
    mine, eager = kind(params, rates[0], weight_decay=0.0), kind(others, rates[1], weight_decay=0.0)
    compiled = torch.compile(mine.step, backend="aot_eager", fullgraph=True)
    for step in range(1, 6):
        for p, q, g in zip(params, others, tensors(step, dtype, [(3, 4), (5,)])):
            p.grad, q.grad = g.clone(), g.clone()
        for rate in rates:
            rate.fill_(0.25 / step)
        with torch.compiler.set_stance("fail_on_recompile" if step > 2 else "default"), as_users_call():
            compiled()
        eager.step()
    for p, q in zip(params, others):
        torch.testing.assert_close(p, q, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_captured_step_is_the_eager_one():
    params = [nn.Parameter(p.detach().cuda()) for p in make(torch.float32)]
    others = [nn.Parameter(p.detach().clone()) for p in params]
    rate = torch.tensor(0.01, device="cuda")
    optimizer, eager = Lion(params, rate, capturable=True), Lion(others, rate)
    for p, q in zip(params, others):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    optimizer.step()
    eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for factor in (0.5, 0.25):
        rate.mul_(factor)
        graph.replay()
        eager.step()
    same([p.detach() for p in params], [q.detach() for q in others])
    with pytest.raises(RuntimeError, match="capturable"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        eager.step()


def test_a_captured_rate_has_to_lie_where_the_parameters_are():
    p = nn.Parameter(torch.zeros(2, device="meta"))
    p.grad = torch.zeros(2, device="meta")
    with pytest.raises(ValueError, match="lr: got a tensor on cpu, expected it on the parameters' device"):
        Lion([p], torch.tensor(0.1), capturable=True).step()


@pytest.mark.parametrize("kind", [Lion, Tiger])
def test_temporaries_stay_a_few_pieces_however_large_the_model(kind):
    """Extra memory of a step in bytes, by PyTorch's own profiler."""
    peaks = []
    for rows in (2000, 8000):
        p = nn.Parameter(torch.ones(rows, 1000))
        p.grad = torch.ones_like(p)
        optimizer = kind([p])
        optimizer.step()
        with torch.profiler.profile(profile_memory=True) as profile:
            optimizer.step()
        sizes = [e.nbytes() for e in memory_events(profile)]
        live = torch.tensor(sizes).cumsum(0)
        peaks.append(live.max().item())
    assert peaks[0] == peaks[1]
    assert 1_000_000 <= peaks[0] <= 4 * 2**20


def memory_events(profile):
    return [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]


def test_the_state_is_made_where_gradients_are():
    params = make(shapes=[(2,), (3,)])
    optimizer = Lion(params)
    params[0].grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    assert list(optimizer.state) == [params[0]]
    run(optimizer, params, steps=1)
    assert list(optimizer.state) == params
