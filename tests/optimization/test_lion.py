"""Lion and Tiger: the step, by loops in float64 and by two other libraries, in every dtype and with every option."""

import copy
import io
import math
from fractions import Fraction

import lion_pytorch
import numpy as np
import pytest
import pytorch_optimizer
import torch
from opinfo import as_users_call
from torch import nn

from kexue_lib.optimization.lion import (
    Lion,
    Tiger,
    adam_update_rms,
    adamw_to_lion,
    lion_step,
    optimizer_state_bytes,
    scale_to_lion,
    stochastic_round_,
)

SHAPES = [(3, 4), (5,), (), (0, 2), (700, 500)]  # the last is cut into pieces
HALF = (torch.bfloat16, torch.float16)


def draw(seed=0, dtype=torch.float64, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def make(dtype=torch.float64, shapes=SHAPES):
    return [nn.Parameter(t) for t in draw(0, dtype, shapes)]


def run(optimizer, params, steps=4, first=1):
    for step in range(first, first + steps):
        for p, g in zip(params, draw(step, params[0].dtype, [p.shape for p in params])):
            p.grad = g
        optimizer.step()
    return [p.detach().clone() for p in params]


def by_hand(steps=4, lr=0.01, betas=(0.9, 0.99), decay=0.1, sign=1, shapes=SHAPES):
    """The three formulas in NumPy."""
    theta = [t.numpy().copy() for t in draw(shapes=shapes)]
    m = [np.zeros_like(t) for t in theta]
    for step in range(1, steps + 1):
        for i, g in enumerate(t.numpy() * sign for t in draw(step, shapes=shapes)):
            u = np.sign(betas[0] * m[i] + (1 - betas[0]) * g)
            theta[i] = theta[i] - lr * (u + decay * theta[i])
            m[i] = betas[1] * m[i] + (1 - betas[1]) * g
    return [torch.from_numpy(np.asarray(t)) for t in theta]


def close(actual, expected, **options):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, **options)


def same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert torch.equal(a, e)


# --- the step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("lr", [0.01, torch.tensor([0.01], dtype=torch.float64)])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.3, 0.9), (0.0, 0.0), (0.9, 0.9)])
def test_the_step_is_the_three_formulas(foreach, lr, maximize, betas):
    params = make()
    options = {"betas": betas, "weight_decay": 0.1, "foreach": foreach, "maximize": maximize}
    obtained = run(Lion(params, lr, **options), params)
    close(obtained, by_hand(betas=betas, sign=-1 if maximize else 1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
def test_together_or_one_by_one_gives_the_same_bits(dtype):
    results = []
    for foreach in (True, False):
        params = make(dtype)
        results.append(run(Lion(params, 0.01, weight_decay=0.1, foreach=foreach), params))
    same(*results)


def test_agrees_with_two_other_libraries():
    mine, theirs, bits = make(), make(), make()
    obtained = run(Lion(mine, 0.01, weight_decay=0.1), mine)
    close(obtained, run(lion_pytorch.Lion(theirs, 0.01, weight_decay=0.1), theirs), rtol=1e-12, atol=1e-14)
    close(obtained, run(pytorch_optimizer.Lion(bits, 0.01, weight_decay=0.1), bits), rtol=1e-12, atol=1e-14)
    mine, bits = make(), make()
    same(run(Lion(mine, 0.01), mine), run(pytorch_optimizer.Lion(bits, 0.01), bits))


def test_equal_betas_give_signum():
    params, other = make(), make()
    momentum = [torch.zeros_like(p) for p in other]
    for step in range(1, 5):
        for p, m, g in zip(other, momentum, draw(step)):
            m.mul_(0.9).add_(g, alpha=0.1)
            p.data.sub_(0.01 * m.sign())
    close(run(Lion(params, 0.01, betas=(0.9, 0.9)), params), [p.detach() for p in other], rtol=0, atol=1e-15)


def test_the_functional_step_is_that_of_the_class():
    params, other = make(), make()
    momentum = [torch.zeros_like(p) for p in other]
    for step in range(1, 5):
        lion_step(other, draw(step), momentum, lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.1)
    same(run(Lion(params, 0.01, weight_decay=0.1), params), [p.detach() for p in other])
    with pytest.raises(ValueError, match="params, grads, exp_avgs: got 5, 1 and 5 tensors"):
        lion_step(other, [momentum[0]], momentum, lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.1)


@pytest.mark.parametrize("kind", [Lion, Tiger])
def test_zero_stays_and_a_rate_of_zero_moves_nothing(kind):
    params = make()
    optimizer = kind(params, 0.0)
    same(run(optimizer, params), draw())
    for p in params:
        p.grad = torch.zeros_like(p)
    fresh = kind(params, 0.1, weight_decay=0.0)
    fresh.step()
    same([p.detach() for p in params], draw())


def test_maximize_leaves_the_gradient_so_that_two_steps_do_not_cancel():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([1.0, -2.0, 0.0])
    optimizer = Lion([p], 0.25, maximize=True)
    optimizer.step()
    optimizer.step()
    assert p.tolist() == [0.5, -0.5, 0.0]
    assert p.grad.tolist() == [1.0, -2.0, 0.0]


def test_the_decay_is_that_of_the_groups_own_rate():
    p = nn.Parameter(torch.ones(1))
    p.grad = torch.zeros(1)
    optimizer = Lion([{"params": [p], "lr": 1e-2}], lr=1e-4, weight_decay=0.1)
    optimizer.step()
    assert p.item() == pytest.approx(1 - 1e-2 * 0.1, rel=1e-6)


def test_groups_have_their_own_options_and_may_be_named():
    params = make()
    names = [(f"p{i}", p) for i, p in enumerate(params)]
    optimizer = Lion([{"params": names[:2]}, {"params": names[2:], "lr": 0.02, "betas": (0.3, 0.9), "weight_decay": 0}])
    optimizer.param_groups[0].update(lr=0.01, weight_decay=0.1)
    obtained = run(optimizer, params)
    close(obtained[:2], by_hand()[:2])
    close(obtained[2:], by_hand(lr=0.02, betas=(0.3, 0.9), decay=0)[2:])
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["p0", "p1"]


@pytest.mark.parametrize("kind", [Lion, Tiger])
def test_closures_see_gradients_and_their_loss_comes_back(kind):
    p, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = kind([p, unused], 0.1)

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert list(optimizer.state) == [p]


def test_complex_parameters_are_pairs_of_real_ones():
    value = torch.randn(4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    p, pair = nn.Parameter(value.clone()), nn.Parameter(torch.view_as_real(value).clone())
    for optimizer in (Lion([p], 0.1, weight_decay=0.1), Lion([pair], 0.1, weight_decay=0.1)):
        p.grad, pair.grad = value.conj().resolve_conj(), torch.view_as_real(value.conj().resolve_conj())
        optimizer.step()
    torch.testing.assert_close(torch.view_as_real(p), pair)


def test_tensors_that_are_not_contiguous_move_like_those_that_are():
    a, b = nn.Parameter(draw()[4].t().contiguous().t()), nn.Parameter(draw()[4].contiguous())
    a.grad, b.grad = draw(1)[4], draw(1)[4].t().contiguous().t()
    for p in (a, b):
        Lion([p], 0.1, weight_decay=0.1).step()
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_a_cautious_step_leaves_out_what_disagrees_and_keeps_the_mean_motion():
    p = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = Lion([p], 0.1, betas=(0.9, 0.99), cautious=True)
    p.grad = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    optimizer.step()
    before = p.detach().clone()
    p.grad = torch.tensor([1.0, -0.01, 0.0, 1.0], dtype=torch.float64)  # the second disagrees with its momentum
    optimizer.step()
    assert (p - before).tolist() == pytest.approx([-0.2, 0.0, 0.0, -0.2])
    p.grad = torch.zeros(4, dtype=torch.float64)
    before = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, before)


# --- half precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_float32_arithmetic_stored_to_the_nearest(dtype):
    params = make(dtype)  # and β₁ without exact ties: 0.9m + 0.1g is 0 at m = −1/16, g = 9/16
    optimizer = Lion(params, 0.0123, betas=(0.8765, 0.99), weight_decay=0.1)
    reference = [p.detach().clone() for p in params]
    momentum = [torch.zeros_like(p) for p in params]
    for step in range(1, 5):
        for i, g in enumerate(draw(step, dtype)):
            p64, m64, g64 = (t.double() for t in (reference[i], momentum[i], g))
            u = (0.8765 * m64 + 0.1235 * g64).float().sign().double()
            reference[i] = (p64 * (1 - 0.0123 * 0.1) - 0.0123 * u).float().to(dtype)
            momentum[i] = (0.99 * m64 + 0.01 * g64).float().to(dtype)
        run(optimizer, params, steps=1, first=step)
    for p, r in zip(params, reference):
        # float32 and float64 may fall on two sides of the middle between neighbours, once in 2¹⁶ or so.
        differing = (p.detach() != r).double().mean() if p.numel() else 0
        assert differing < 1e-4
        torch.testing.assert_close(p.detach(), r, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(
    ("rounding", "low", "high"), [("nearest", 1.0, 1.0), ("stochastic", 0.945, 0.955), ("kahan", 0.948, 0.952)]
)
def test_small_steps_arrive_in_bfloat16_unless_rounded_to_the_nearest(rounding, low, high):
    p = nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    optimizer = Lion([p], 1e-4, rounding=rounding)
    for _ in range(500):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert low <= p.double().mean().item() <= high
    assert p.dtype == torch.bfloat16


def test_stochastic_rounding_is_unbiased_between_neighbours():
    x = torch.tensor([1.001, -3.3, 1e-30, 2.5e38, 7.0]).repeat(200_000, 1)
    rounded = stochastic_round_(torch.empty_like(x, dtype=torch.bfloat16), x, torch.Generator().manual_seed(0))
    for column, value in zip(rounded.double().T, x[0].double().tolist()):
        levels = column.unique().tolist()
        spacing = 2.0 ** (math.frexp(value)[1] - 8)
        assert all(abs(Fraction(level) - Fraction(value)) < Fraction(spacing) for level in levels)
        assert len(levels) == (1 if value == 7 else 2)
        assert abs(column.mean().item() - value) <= 4 * spacing / 2 / math.sqrt(len(x))


def test_stochastic_rounding_keeps_what_bfloat16_holds():
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    rounded = stochastic_round_(torch.empty_like(patterns), patterns.float())
    assert torch.equal(rounded.isnan(), patterns.isnan())
    assert torch.equal(rounded.nan_to_num(7.0), patterns.nan_to_num(7.0))
    worst = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)  # NaN whose carry would overflow
    assert stochastic_round_(torch.empty(2, dtype=torch.bfloat16), worst).isnan().all()
    with pytest.raises(TypeError, match=r"dst: got torch\.float32"):
        stochastic_round_(torch.empty(2), worst)
    with pytest.raises(ValueError, match=r"src: got shape \(2,\), expected \(3,\)"):
        stochastic_round_(torch.empty(3, dtype=torch.bfloat16), worst)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_rounding_is_for_bfloat16_only(dtype, rounding):
    mine, plain = make(dtype), make(dtype)
    same(run(Lion(mine, 0.01, rounding=rounding), mine), run(Lion(plain, 0.01), plain))


@pytest.mark.parametrize("kind", [Lion, Tiger])
def test_a_given_generator_is_used_and_the_global_one_left_alone(kind):
    results = []
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for seed in (1, 1, 2, None, None):
        params = make(torch.bfloat16)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        results.append(run(kind(params, 1e-3, rounding="stochastic", generator=generator), params))
    same(results[0], results[1])
    same(results[3], results[4])
    assert not torch.equal(results[0][4], results[2][4])
    assert torch.equal(before, torch.get_rng_state())


def test_a_momentum_of_its_own_dtype():
    params = make(torch.bfloat16)
    optimizer = Lion(params, 0.01, momentum_dtype=torch.float32)
    run(optimizer, params)
    expected = torch.zeros(700, 500, dtype=torch.float64)
    for step in range(1, 5):
        expected = 0.99 * expected + 0.01 * draw(step, torch.bfloat16)[4].double()
    momentum = optimizer.state[params[4]]["exp_avg"]
    assert momentum.dtype == torch.float32
    torch.testing.assert_close(momentum.double(), expected, rtol=1e-5, atol=1e-8)


# --- state ------------------------------------------------------------------------------------------------------------

OPTIONS = [
    (Lion, {}),
    (Lion, {"rounding": "stochastic"}),
    (Lion, {"rounding": "kahan"}),
    (Lion, {"momentum_dtype": torch.float32, "lr": torch.tensor(0.01)}),
    (Lion, {"cautious": True, "maximize": True}),
    (Tiger, {}),
    (Tiger, {"accumulation_steps": 3, "rounding": "stochastic", "momentum_dtype": torch.float32}),
    (Tiger, {"accumulation_steps": 3, "rounding": "kahan"}),
]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_a_state_that_went_through_a_file_goes_on_to_the_same_bits(kind, options, dtype):
    params = make(dtype)
    optimizer = kind(params, **options)
    run(optimizer, params)
    others = [nn.Parameter(p.detach().clone()) for p in params]
    loaded = kind(others, **options)
    loaded.load_state_dict(through_a_file(optimizer.state_dict()))
    twin, twins = copy.deepcopy((optimizer, params))
    whole = run(optimizer, params, first=5)
    same(whole, run(loaded, others, first=5))
    same(whole, run(twin, twins, first=5))
    for p, q in zip(params, others):
        assert {k: v.dtype for k, v in optimizer.state[p].items()} == {k: v.dtype for k, v in loaded.state[q].items()}


@pytest.mark.parametrize("kind", [Lion, Tiger])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("momentum_dtype", [None, torch.float32, torch.bfloat16])
def test_a_state_moves_between_dtypes_without_a_detour(kind, source, target, momentum_dtype):
    params, others = make(source), make(target)
    first = kind(params, momentum_dtype=momentum_dtype, rounding="kahan")
    run(first, params)
    second = kind(others, momentum_dtype=momentum_dtype)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for p, q in zip(params, others):
        kept, momentum = first.state[p]["exp_avg"], second.state[q]["exp_avg"]
        assert torch.equal(momentum, kept.to(momentum_dtype or target))
        assert ("compensation" in second.state[q]) == (source == target == torch.bfloat16)
    run(second, others)


def test_a_loaded_momentum_shares_no_memory_with_what_it_came_from():
    params, others = make(), make()
    first, second = Lion(params), Lion(others)
    run(first, params)
    second.load_state_dict(first.state_dict())
    before = first.state[params[4]]["exp_avg"].clone()
    run(second, others)
    assert torch.equal(first.state[params[4]]["exp_avg"], before)


@pytest.mark.parametrize(
    ("kind", "options", "dtype", "each"),
    [
        (Lion, {}, torch.float32, 4),
        (Tiger, {"accumulation_steps": 4}, torch.float32, 4),
        (torch.optim.AdamW, {}, torch.float32, 8),
        (Lion, {"momentum_dtype": torch.bfloat16}, torch.float32, 2),
        (Lion, {}, torch.bfloat16, 2),
        (Lion, {"rounding": "kahan"}, torch.bfloat16, 4),
    ],
)
def test_bytes_of_state_are_counted(kind, options, dtype, each):
    params = make(dtype, [(30, 20), (7,)])
    optimizer = kind(params, **options)
    run(optimizer, params)
    assert optimizer_state_bytes(optimizer) == each * 607


# --- rates, and what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.95])
def test_rms_of_adams_update_is_the_sum_of_its_weights_squared(beta):
    terms = [((1 - Fraction(str(beta))) * Fraction(str(beta)) ** j) ** 2 for j in range(400)]
    assert adam_update_rms(beta) == pytest.approx(math.sqrt(sum(terms)), rel=1e-9)


def test_rates():
    lr, decay = adamw_to_lion(3e-4, 0.1, factor=4.0)
    assert (lr, decay) == pytest.approx((7.5e-5, 0.4))
    lr, decay = scale_to_lion(1e-3, 0.02)
    assert (lr, decay) == pytest.approx((2e-5, 0.025))
    for call in (
        lambda: adamw_to_lion(-1.0, 0.0),
        lambda: adamw_to_lion(1.0, 0.0, factor=0.0),
        lambda: scale_to_lion(1.0, 0.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
    with pytest.raises(ValueError, match="beta1: got 1"):
        adam_update_rms(1.0)


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (Lion, {"lr": -1.0}, ValueError, "lr: got -1.0"),
        (Lion, {"lr": math.nan}, ValueError, "lr: got nan"),
        (Lion, {"lr": "fast"}, TypeError, "lr: got 'fast'"),
        (Lion, {"lr": torch.ones(2)}, ValueError, "lr: got a tensor of 2 elements"),
        (Lion, {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\]: got 1.0"),
        (Lion, {"betas": (0.9, -0.1)}, ValueError, r"betas\[1\]: got -0.1"),
        (Lion, {"betas": (0.9,)}, ValueError, "betas: got 1 numbers, expected two"),
        (Lion, {"weight_decay": -1.0}, ValueError, "weight_decay: got -1.0"),
        (Lion, {"rounding": "up"}, ValueError, "rounding: got 'up', expected 'nearest', 'stochastic' or 'kahan'"),
        (Lion, {"momentum_dtype": torch.int8}, TypeError, r"momentum_dtype: got torch\.int8"),
        (Tiger, {"lr": -1.0}, ValueError, "lr: got -1.0"),
        (Tiger, {"beta": 1.0}, ValueError, "beta: got 1.0"),
        (Tiger, {"accumulation_steps": 0}, ValueError, "accumulation_steps: got 0"),
        (Tiger, {"scale": "norm"}, ValueError, "scale: got 'norm', expected 'rms' or 'none'"),
        (Tiger, {"shrink": 1.1}, ValueError, "shrink: got 1.1"),
        (Tiger, {"center": math.inf}, ValueError, "center: got inf"),
    ],
)
def test_bad_options_are_named_in_constructor_and_group(kind, options, error, message):
    p = nn.Parameter(torch.zeros(1))
    with as_users_call(), pytest.raises(error, match=message):
        kind([p], **options)
    with pytest.raises(error, match=message):
        kind([{"params": [p], **options}])
    with pytest.raises(ValueError, match="empty parameter list"):
        kind([])


@pytest.mark.parametrize("kind", [Lion, Tiger])
def test_sparse_gradients_are_refused(kind):
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse gradient"):
        kind(embedding.parameters()).step()
