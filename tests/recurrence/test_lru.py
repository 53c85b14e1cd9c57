"""lru: loops in float64, SciPy's filter, kernels by convolution, 50 digits, and many draws of the random parts."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import kstest

from kexue_lib.checkpoints.recurrence import lru as stored
from kexue_lib.recurrence.lru import LRU, LRUBlock, diagonalize_rnn, lru_eigenvalues, lru_gain, lru_init, rwkv_mix
from tests.opinfo import as_users_call

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("r_min", "r_max", "max_phase"), [(0.9, 0.999, 2 * math.pi), (0.0, 0.5, 1.0), (0.3, 0.9, 0.1)])
def test_draws_are_uniform_on_the_ring(r_min: float, r_max: float, max_phase: float) -> None:
    nu_log, theta_log, gamma_log = lru_init(
        20_000, r_min=r_min, r_max=r_max, max_phase=max_phase, generator=seeded(0), dtype=torch.float64
    )
    lam = lru_eigenvalues(nu_log, theta_log)
    share = (lam.abs() ** 2 - r_min**2) / (r_max**2 - r_min**2)
    assert kstest(share.numpy(), "uniform").pvalue > 1e-3
    angle = torch.remainder(lam.angle(), 2 * math.pi) / max_phase
    assert kstest(angle.numpy(), "uniform").pvalue > 1e-3
    assert torch.allclose(gamma_log.exp() ** 2 + lam.abs() ** 2, torch.ones(20_000, dtype=torch.float64), atol=1e-12)


def test_equal_radii_and_equal_generators() -> None:
    nu_log, theta_log, _ = lru_init(50, r_min=0.7, r_max=0.7)
    assert torch.allclose(lru_eigenvalues(nu_log, theta_log).abs(), torch.tensor(0.7))
    first, second = (lru_init(5, generator=seeded(3)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second))


def test_eigenvalues_stay_inside_of_the_circle_for_all_parameters() -> None:
    nu_log = torch.linspace(-30, 5, 200, dtype=torch.float64)
    sizes = lru_eigenvalues(nu_log, torch.zeros_like(nu_log)).abs()
    assert (sizes < 1).all()
    assert (sizes.diff() <= 0).all()


def test_powers_are_exponentials() -> None:
    nu_log, theta_log, _ = lru_init(64, generator=seeded(0), dtype=torch.float64)
    lam = lru_eigenvalues(nu_log, theta_log)
    by_formula = torch.exp(5000 * torch.complex(-nu_log.exp(), theta_log.exp()))
    exact = [mpmath.mpc(z.real, z.imag) ** 5000 for z in lam.tolist()]
    assert max(abs(complex(p) - q) for p, q in zip(exact, by_formula.tolist())) < 1e-11


GAINS = [(r, t) for r in (0.0, 1e-3, 0.5, 0.999, 1 - 1e-6, 1.0) for t in (0, 1, 6, 1000, 10**6)]


@pytest.mark.parametrize(("r", "t"), [*GAINS, (1.01, 6), (1.01, 1000)])
def test_gain_against_fifty_digits(r: float, t: int) -> None:
    with mpmath.workdps(50):
        q = mpmath.mpf(r) ** 2
        exact = mpmath.mpf(t + 1) if r == 1 else (1 - q ** (t + 1)) / (1 - q)
    got = lru_gain(torch.tensor([r], dtype=torch.float64), t).item()
    assert got == pytest.approx(float(exact), rel=1e-9)


def test_limit_of_the_gain() -> None:
    r = torch.tensor([0.0, 0.5, 0.999, 1.0, 1.5], dtype=torch.float64)
    assert lru_gain(r).tolist() == pytest.approx([1, 4 / 3, 1 / (1 - 0.999**2), math.inf, math.inf], rel=1e-12)


def test_gain_is_what_white_noise_does() -> None:
    lam = lru_eigenvalues(torch.tensor([-3.0, -2.0]).double(), torch.tensor([0.3, -4.0]).double())
    x = torch.zeros(40_000, 2, dtype=torch.complex128)
    noise = normal(30, 40_000, 2)
    for t in range(30):
        x = lam * x + noise[t]
    seen = x.abs().square().mean(0)
    # E|x²|² ≤ 3 (E|x|²)² for normal inputs, so the error of the mean is at most √2 of it over the root of the draws.
    assert torch.allclose(seen, lru_gain(lam.abs(), 29), rtol=5 * math.sqrt(2 / 40_000))


def test_diagonal_form_gives_the_outputs_of_the_dense_network() -> None:
    A, B, C, v = normal(16, 16) / 4, normal(16, 3, seed=1), normal(2, 16, seed=2), normal(40, 3, seed=3)
    A = A / torch.linalg.eigvals(A).abs().max() * 0.95
    lam, B_d, C_d = diagonalize_rnn(A, B, C)
    x, z = torch.zeros(16, dtype=torch.float64), torch.zeros(16, dtype=torch.complex128)
    for t in range(40):
        x, z = A @ x + B @ v[t], lam * z + B_d @ v[t].to(torch.complex128)
        assert torch.allclose((C_d @ z).real, C @ x, atol=1e-10)
        assert (C_d @ z).imag.abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("block", "size"), [(2, 2), (2, 4), (2, 16), (3, 3), (4, 4)])
def test_a_jordan_block_is_refused_in_every_basis(dtype: torch.dtype, block: int, size: int) -> None:
    jordan = torch.linspace(-0.9, 0.4, size, dtype=torch.float64).diag()
    jordan[:block, :block] = 0.5 * torch.eye(block) + torch.ones(block - 1).diag(1)
    bases = [torch.eye(size, dtype=torch.float64), *(normal(size, size, seed=seed) for seed in range(20))]
    for basis in bases:
        A = (basis @ jordan @ torch.linalg.inv(basis)).to(dtype)
        with pytest.raises(ValueError, match=r"A: got .* expected a diagonalisable"):
            diagonalize_rnn(A, torch.eye(size, dtype=dtype), torch.eye(size, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_accepted_keeps_half_of_the_digits(dtype: torch.dtype) -> None:
    for seed in range(20):
        A, eye = (normal(32, 32, seed=seed) / 32**0.5).to(dtype), torch.eye(32, dtype=dtype)
        lam, B, C = diagonalize_rnn(A, eye, eye)
        exact = torch.linalg.matrix_power(A.double(), 10)
        error = torch.linalg.matrix_norm((C * lam**10 @ B).real - exact, 2) / torch.linalg.matrix_norm(exact, 2)
        assert error < torch.finfo(dtype).eps ** 0.5


def test_eigenvalues_leave_the_circle_by_rounding_only() -> None:
    theta_log = torch.linspace(-5, math.log(2 * math.pi), 10_000)
    for nu_log in (-10.0, -18.0, -30.0, -80.0):
        size = lru_eigenvalues(torch.full_like(theta_log, nu_log), theta_log).to(torch.complex128).abs()
        assert size.max() <= 1 + torch.finfo(torch.float32).eps


def test_mixing_against_fifty_digits_of_the_double_sum() -> None:
    w, bonus = torch.tensor([0.3, 2.0]).double(), torch.tensor([-1.0, 5.0]).double()
    k, v = normal(12, 2) * 300, normal(12, 2, seed=1)
    got = rwkv_mix(w, bonus, k, v)
    with mpmath.workdps(50):
        for c in range(2):
            for t in range(12):
                weights = [mpmath.exp(k[i, c].item() - w[c].item() * (t - 1 - i)) for i in range(t)]
                weights.append(mpmath.exp(bonus[c].item() + k[t, c].item()))
                exact = mpmath.fdot(weights, v[: t + 1, c].tolist()) / mpmath.fsum(weights)
                assert got[t, c].item() == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("decay", [1e-6, 1.0, 1e4])
def test_mixing_stays_a_mean(decay: float) -> None:
    k = normal(3000, 4, dtype=torch.float32) * 1000
    v = normal(3000, 4, seed=1, dtype=torch.float32)
    out = rwkv_mix(torch.full((4,), decay), torch.zeros(4), k, v)
    slack = 1e-5 * v.abs().max()
    assert out.isfinite().all()
    assert (out <= v.cummax(0).values + slack).all()
    assert (out >= v.cummin(0).values - slack).all()
    assert torch.allclose(rwkv_mix(torch.full((4,), decay), torch.zeros(4), k, torch.ones_like(v)), torch.tensor(1.0))


def test_mixing_gradients_at_large_exponents() -> None:
    inputs = [normal(2).abs() + 0.1, normal(2, seed=1), normal(6, 2, seed=2) * 30 + 1000, normal(6, 2, seed=3)]
    inputs[2] = torch.round(inputs[2])  # so that differences of a millionth survive beside a thousand
    assert torch.autograd.gradcheck(rwkv_mix, [x.requires_grad_() for x in inputs], atol=1e-4)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_pieces_and_single_steps_agree(real: bool, dtype: torch.dtype) -> None:
    block = LRUBlock(6, 10, real=real, dtype=dtype, generator=seeded(0))
    u = normal(2, 300, 6, dtype=dtype)
    whole, end = block(u, return_state=True)
    pieces, state = [], None
    for piece in u.split([1, 99, 0, 150, 50], 1):
        y, state = block(piece, state, return_state=True)
        pieces.append(y)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=TOLERANCE[dtype])
    assert torch.allclose(state, end, atol=TOLERANCE[dtype])
    outputs, state = [], block.initial_state(2)
    for t in range(300):
        y, state = block.step(u[:, t], state)
        outputs.append(y)
    assert torch.allclose(torch.stack(outputs, 1), whole, atol=TOLERANCE[dtype])
    assert torch.allclose(state, end, atol=TOLERANCE[dtype])
    assert torch.equal(block(u), whole)


def test_layer_is_the_convolution_with_its_kernel() -> None:
    layer = LRU(3, 5, dtype=torch.float64, generator=seeded(0))
    u = normal(64, 3)
    with torch.no_grad():
        lam = layer.eigenvalues()
        B = torch.complex(layer.in_proj[:5], layer.in_proj[5:]) * layer.gamma_log.exp()[:, None]
        C = torch.complex(layer.out_proj[:, :5], layer.out_proj[:, 5:])
        kernel = torch.einsum("os,ks,si->koi", C, lam ** torch.arange(64)[:, None], B).real
        expected = torch.stack([sum(kernel[k] @ u[t - k] for k in range(t + 1)) for t in range(64)]) + layer.D * u
        assert torch.allclose(layer(u), expected, atol=1e-12)


def test_real_layer_is_scipys_filter() -> None:
    layer = LRU(1, 1, real=True, dtype=torch.float64, generator=seeded(1))
    u = normal(500, 1)
    lam, gain = layer.eigenvalues().item(), (layer.gamma_log.exp() * layer.in_proj[0, 0]).item()
    filtered = lfilter([gain], [1.0, -lam], u[:, 0].numpy()) * layer.out_proj.item() + layer.D.item() * u[:, 0].numpy()
    assert np.allclose(layer(u)[:, 0].detach().numpy(), filtered, atol=1e-12)


def test_states_start_at_the_scale_of_the_inputs() -> None:
    layer = LRU(64, 512, r_min=0.9, r_max=0.99, generator=seeded(0))
    _, state = layer(normal(200, 1000, 64, dtype=torch.float32), return_state=True)
    by_state = state.abs().square().mean(0)
    assert by_state.mean().item() == pytest.approx(1, abs=0.05)
    # The slowest remembers 100 steps: without γ the mean square would lie at 5 to 50.
    assert by_state.min() > 0.3
    assert by_state.max() < 3


@pytest.mark.parametrize("real", [False, True])
def test_half_types_accumulate_in_float32(real: bool) -> None:
    layer = LRU(4, 8, real=real, generator=seeded(0))
    u = normal(2, 50, 4, dtype=torch.bfloat16)
    y, state = layer(u, return_state=True)
    assert y.dtype == torch.bfloat16
    assert state.dtype == (torch.float32 if real else torch.complex64)
    assert torch.allclose(y.float(), layer(u.float()), rtol=2**-8, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(layer(u.float()).float(), layer(u.float()), atol=0.2)
    assert layer.bfloat16()(u).isfinite().all()


@pytest.mark.parametrize("real", [False, True])
def test_an_empty_sequence_keeps_the_state(real: bool) -> None:
    layer = LRU(4, 8, real=real)
    before = layer(normal(2, 5, 4, dtype=torch.float32), return_state=True)[1]
    y, after = layer(torch.zeros(2, 0, 4), before, return_state=True)
    assert y.shape == (2, 0, 4)
    assert torch.equal(after, before)
    assert torch.equal(layer(torch.zeros(2, 0, 4), return_state=True)[1], layer.initial_state(2))


@pytest.mark.parametrize("real", [False, True])
def test_block_compiles_without_a_break(real: bool) -> None:
    block = LRUBlock(4, 8, real=real, generator=seeded(0))
    u = normal(2, 40, 4, dtype=torch.float32)
    with as_users_call():
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        loss, expected = compiled(u).square().sum(), block(u).square().sum()
    for got, wanted in zip(
        torch.autograd.grad(loss, [*block.parameters()]), torch.autograd.grad(expected, [*block.parameters()])
    ):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_initial_weights_have_their_variances() -> None:
    layer = LRU(128, 256, generator=seeded(0))
    assert layer.in_proj.shape == (512, 128)
    assert layer.out_proj.shape == (128, 512)
    assert layer.in_proj.var().item() == pytest.approx(1 / 256, rel=0.03)
    assert layer.out_proj.var().item() == pytest.approx(1 / 256, rel=0.03)
    real = LRU(128, 256, real=True, generator=seeded(0))
    assert real.in_proj.shape == (256, 128)
    assert real.in_proj.var().item() == pytest.approx(1 / 128, rel=0.03)
    assert not hasattr(real, "theta_log")
    assert real.eigenvalues().dtype == torch.float32


def test_the_ablation_differs_in_what_it_names_only() -> None:
    task = stored.TASKS["at once"]
    made = {name: make(seeded(0)) for name, make in stored.variants(task).items()}
    whole, direct = made["ring, exponential, γ"], made["ring, direct, γ"]
    u = normal(2, 30, stored.D_MODEL, dtype=torch.float32)
    assert torch.allclose(whole(u), direct(u), atol=1e-5)
    angle = made["ring, exponential, γ, θ itself"]
    assert torch.allclose(whole(u), angle(u), atol=1e-5)
    slow = stored.groups(angle, 1.0, 0.1)[0]["params"]
    assert slow[0] is angle.nu_log
    assert slow[1] is angle.theta
    without = made["ring, exponential, no γ"]
    assert torch.equal(whole.in_proj, without.in_proj)
    assert torch.equal(whole.nu_log, without.nu_log)
    one = made["ring, exponential, one γ"]
    gains = lru_gain(whole.eigenvalues().abs().detach())
    assert (one.gamma_log.exp() ** 2 * gains).mean().item() == pytest.approx(1, rel=1e-4)
    slow, rest = stored.groups(whole, 1.0, 0.1)
    assert [p is q for p, q in zip(slow["params"], (whole.nu_log, whole.theta_log), strict=True)] == [True, True]
    assert slow["lr"] == 0.1
    assert len(rest["params"]) == 4


BAD = [
    (lambda: lru_init(0), ValueError, "d_state: got 0"),
    (lambda: lru_init(2.0), TypeError, "d_state"),
    (lambda: lru_init(4, r_min=0.9, r_max=0.5), ValueError, "r_min, r_max: got 0.9, 0.5"),
    (lambda: lru_init(4, r_max=1.0), ValueError, "r_min <= r_max < 1"),
    (lambda: lru_init(4, r_min=-0.1), ValueError, "r_min"),
    (lambda: lru_init(4, r_min=0.0, r_max=0.0), ValueError, "r_max above 0"),
    (lambda: lru_init(4, max_phase=0.0), ValueError, "max_phase"),
    (lambda: lru_init(4, max_phase=7.0), ValueError, "max_phase"),
    (lambda: LRU(0, 4), ValueError, "d_model: got 0"),
    (lambda: LRU(4, 0), ValueError, "d_state: got 0"),
    (lambda: LRU(4, 8).step(torch.zeros(3), torch.zeros(8)), ValueError, "d_model"),
    (lambda: LRU(4, 8, real=True).step(torch.zeros(4), torch.zeros(8) * 1j), TypeError, "state"),
    (lambda: diagonalize_rnn(torch.zeros(2, 3), torch.eye(2), torch.eye(2)), ValueError, "A: got shape"),
    (lambda: diagonalize_rnn(torch.eye(2), torch.eye(3), torch.eye(2)), ValueError, "B: got shape"),
    (lambda: diagonalize_rnn(torch.eye(2) * 1j, torch.eye(2), torch.eye(2)), TypeError, "A: got torch.complex64"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message: str) -> None:
    with as_users_call(), pytest.raises(error, match=message):
        call()
