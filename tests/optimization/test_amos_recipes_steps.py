"""amos_recipes: both optimizers against scalar loops in plain Python, and Amos against its peer."""

from __future__ import annotations

import math

import pytest
import pytorch_optimizer
import torch
from torch import nn

from kexue_lib.optimization import amos_recipes as ar

MODES = ("inverse_time", "inverse_square")
REDUCTIONS = ("all", "fan_in", "none")
SHAPES = ((3, 4), (5,), (2, 3, 2), ())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tensors(dtype=torch.float64, seed=0, shapes=SHAPES):
    g = seeded(seed)
    return [torch.randn(s, dtype=torch.float64, generator=g).to(dtype).requires_grad_() for s in shapes]


def set_gradients(params, seed, scale=1.0):
    g = seeded(seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, dtype=torch.float64, generator=g)).to(p.dtype)


# --- Amos -------------------------------------------------------------------------------------------------------------


class AmosByHand:
    """The authors' rule, one scalar after the other."""

    def __init__(self, params, lr, beta=0.999, momentum=0.0, extra_l2=0.0, eta=None, reduce="all", clip=None):
        self.params = [p.detach().double().clone() for p in params]
        self.o = (lr, beta, momentum, extra_l2, eta, reduce, clip)
        self.v = [torch.zeros_like(p) for p in self.params]
        self.b = [torch.zeros_like(p) for p in self.params]
        self.m = [torch.zeros_like(p) for p in self.params]
        self.t = 0

    def step(self, grads):
        lr, beta, momentum, extra_l2, eta, reduce, clip = self.o
        self.t += 1
        for p, g, v, b, m in zip(self.params, grads, self.v, self.b, self.m):
            g = g.double() if clip is None else g.double().clamp(-clip, clip)
            scale = eta or {0: 0.5, 1: 0.5, 2: math.sqrt(2 / max(p.shape[-1:], default=1))}.get(
                p.ndim, math.sqrt(1 / p.shape[1]) if p.ndim > 1 else 0.5
            )
            for where in self.slots(p.shape, reduce):
                entries = [g[i].item() for i in where]
                square = sum(x * x for x in entries) / len(entries)
                old_v, old_b = v[where[0]].item(), b[where[0]].item()
                new_v = beta * old_v + (1 - beta) * square
                r = (1 - beta**self.t) / max(new_v, 2.0**-125)
                c = (1 + 0.25 * math.sqrt(lr) * old_b) ** -0.5
                d = 1 / (1 + 0.25 * math.sqrt(lr * scale) * old_b)
                gamma = c * lr**2 * r * square
                for i, x in zip(where, entries):
                    u = d * (lr * scale * math.sqrt(r) * x + (gamma / 2 + extra_l2) * p[i].item())
                    m[i] = momentum * m[i] + (1 - momentum) * u
                    p[i] -= m[i]
                    v[i], b[i] = new_v, old_b + gamma * (1 + old_b)

    @staticmethod
    def slots(shape, reduce):
        every = (
            [tuple(i) for i in torch.cartesian_prod(*map(torch.arange, shape)).view(-1, len(shape)).tolist()]
            if shape
            else [()]
        )
        if reduce == "none" or (reduce == "fan_in" and len(shape) <= 1):
            return [[i] for i in every]
        if reduce == "all":
            return [every]
        return [[i for i in every if i[0] == row] for row in range(shape[0])]


OPTIONS = [
    {},
    {"momentum": 0.9},
    {"extra_l2": 0.03},
    {"eta": 0.7},
    {"clip_value": 0.5},
    {"beta": 0.0},
    {"momentum": 0.5, "extra_l2": 0.01, "beta": 0.9},
]


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("foreach", [None, True, False])
def test_amos_is_the_authors_rule(reduce, options, foreach):
    params = tensors()
    hand = AmosByHand(params, 0.05, reduce=reduce, **{k.removesuffix("_value"): v for k, v in options.items()})
    optimizer = ar.Amos(params, lr=0.05, reduce=reduce, foreach=foreach, **options)
    for t in range(12):
        set_gradients(params, t, scale=10.0 ** (t % 3))
        hand.step([p.grad for p in params])
        optimizer.step()
    for p, expected in zip(params, hand.params):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_amos_is_its_peer_where_the_peer_is_right(momentum):
    ours, theirs = tensors(), tensors()
    a, b = ar.Amos(ours, lr=0.01, momentum=momentum), pytorch_optimizer.Amos(theirs, lr=0.01, momentum=momentum)
    for t in range(40):
        set_gradients(ours, t)
        set_gradients(theirs, t)
        a.step()
        b.step()
    for x, y in zip(ours, theirs):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-13)


def test_extra_decay_shrinks_a_weight_without_gradient():
    p = nn.Parameter(torch.ones(3, dtype=torch.float64))
    p.grad = torch.zeros_like(p)
    ar.Amos([p], extra_l2=0.1).step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.9, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e15, 1e25, 3e38])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_amos_stays_finite(scale, reduce):
    params = [nn.Parameter(torch.ones(4, 5)), nn.Parameter(torch.ones(6))]
    optimizer = ar.Amos(params, lr=0.1, reduce=reduce)
    for _ in range(5):
        for p in params:
            p.grad = torch.full_like(p, scale)
        optimizer.step()
    for p in params:
        assert p.isfinite().all()
        if scale == 0:
            assert (p == 1).all()
    for state in optimizer.state.values():
        assert all(x.isfinite().all() for x in state.values())


@pytest.mark.parametrize(
    "make", [lambda p: ar.Amos(p, 0.01), lambda p: ar.RelativeUpdate(p, 0.01)], ids=["amos", "relative"]
)
def test_bfloat16_is_the_rounded_float32_step(make):
    half = tensors(torch.bfloat16, shapes=((3, 4), (5,)))
    full = [p.detach().float().requires_grad_() for p in half]
    a, b = make(half), make(full)
    for t in range(6):
        set_gradients(half, t)
        for p, q in zip(half, full):
            q.grad = p.grad.float()
            with torch.no_grad():
                q.copy_(p)
        a.step()
        b.step()
        for p, q in zip(half, full):
            # σ is measured once, on equal values; only the last rounding differs.
            torch.testing.assert_close(p.detach(), q.detach().bfloat16(), rtol=0, atol=0)
    for state in a.state.values():
        assert all(x.dtype == torch.float32 for k, x in state.items() if isinstance(x, torch.Tensor) and k != "step")


@pytest.mark.parametrize("make", [lambda p, **k: ar.Amos(p, **k)], ids=["amos"])
def test_maximize_is_descent_of_the_opposite_and_leaves_gradients_alone(make):
    up, down = tensors(), tensors()
    set_gradients(up, 1)
    set_gradients(down, 1)
    before = [p.grad.clone() for p in up]
    for p in down:
        p.grad.neg_()
    make(up, maximize=True, clip_value=0.3).step()
    make(down, clip_value=0.3).step()
    for p, q, g in zip(up, down, before):
        assert torch.equal(p, q)
        assert torch.equal(p.grad, g)


@pytest.mark.parametrize("capturable", [False, True])
def test_tensor_rate_and_capturable_change_nothing(capturable):
    plain, other = tensors(torch.float32), tensors(torch.float32)
    a, b = ar.Amos(plain, lr=0.01), ar.Amos(other, lr=torch.tensor(0.01), capturable=capturable)
    for t in range(5):
        set_gradients(plain, t)
        set_gradients(other, t)
        a.step()
        b.step()
    for p, q in zip(plain, other):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_slots_broadcast_and_are_as_many_as_promised():
    p = nn.Parameter(torch.ones(4, 5, 6))
    p.grad = torch.ones_like(p)
    for reduce, shape in zip(REDUCTIONS, ((1, 1, 1), (4, 1, 1), (4, 5, 6))):
        optimizer = ar.Amos([p], reduce=reduce)
        optimizer.step()
        assert optimizer.state[p]["exp_avg_sq"].shape == optimizer.state[p]["decay"].shape == shape


def test_parameters_that_come_later_have_their_own_count():
    late, alone = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    early = nn.Parameter(torch.ones(2))
    both = ar.Amos([early, late], lr=0.1)
    for _ in range(3):
        early.grad = torch.ones(2)
        both.step()
    late.grad, alone.grad = torch.ones(3), torch.ones(3)
    both.step()
    ar.Amos([alone], lr=0.1).step()
    torch.testing.assert_close(late, alone, rtol=1e-6, atol=0)


# --- relative updates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["adam", "sign", "sgd"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("foreach", [None, True, False])
def test_relative_update_is_its_formula(base, mode, foreach):
    params = tensors(shapes=((3, 4), (5,), (2, 2, 2)))
    thetas = [p.detach().clone() for p in params]
    sigmas = [p.std(correction=0).item() if p.ndim > 1 else 0.5 for p in thetas]
    optimizer = ar.RelativeUpdate(params, 0.01, kappa=0.3, q=0.7, mode=mode, base=base, foreach=foreach)
    first, second = ([torch.zeros_like(p) for p in thetas] for _ in range(2))
    for t in range(8):
        set_gradients(params, t)
        optimizer.step()
        f = (1 + 0.3 * t) ** (-1 if mode == "inverse_time" else -2)
        for i, p in enumerate(params):
            g = p.grad
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            adam = first[i] / (1 - 0.9 ** (t + 1)) / ((second[i] / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)
            u = {"adam": adam, "sign": g.sign(), "sgd": g}[base]
            step = 0.01 * math.sqrt(g.numel()) * sigmas[i] * f * u / u.norm()
            thetas[i] = thetas[i] - step - 0.01**2 / 1.4 * f * thetas[i]
    for p, expected in zip(params, thetas):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-13)


def test_adam_direction_is_torchs():
    ours, theirs = (nn.Parameter(torch.ones(50, dtype=torch.float64)) for _ in range(2))
    optimizer, reference = ar.RelativeUpdate([ours], 0.01, sigma=2.0, q=math.inf), torch.optim.Adam([theirs], lr=1.0)
    for t in range(20):
        set_gradients([ours], t)
        set_gradients([theirs], t)
        before, there = ours.detach().clone(), theirs.detach().clone()
        optimizer.step()
        reference.step()
        moved, direction = ours.detach() - before, theirs.detach() - there
        assert moved.norm().item() == pytest.approx(0.01 * math.sqrt(50) * 2, rel=1e-9)
        torch.testing.assert_close(moved / moved.norm(), direction / direction.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("c", [2.0**-6, 8.0])
def test_written_as_a_multiple_a_weight_takes_the_same_way(c):
    target = torch.randn(4, 6, generator=seeded(3))
    weight = torch.randn(4, 6, generator=seeded(4))

    def train(c):
        own = nn.Parameter(weight / c)
        optimizer = ar.RelativeUpdate([own], 0.02, base="sign")
        for t in range(50):
            optimizer.zero_grad()
            ((c * own - target) * torch.randn(4, 6, generator=seeded(t))).square().sum().backward()
            optimizer.step()
        return c * own.detach()

    assert torch.equal(train(c), train(1.0))


@pytest.mark.parametrize("base", ["adam", "sign", "sgd"])
def test_no_direction_leaves_only_the_decay(base):
    p = nn.Parameter(torch.full((2, 2), 4.0))
    p.grad = torch.zeros_like(p)
    ar.RelativeUpdate([p], 0.1, base=base).step()
    torch.testing.assert_close(p.detach(), torch.full((2, 2), 4.0 * (1 - 0.005)))


def test_constant_weights_and_empty_ones():
    zero, empty = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(0, 3))
    for p in (zero, empty):
        p.grad = torch.ones_like(p)
    ar.RelativeUpdate([zero, empty], 0.1, base="sgd", foreach=True).step()
    torch.testing.assert_close(zero.detach(), torch.full((2, 3), -0.05))
