"""s4: SciPy's discretisation and simulation of the dense LegS system, NumPy's convolution, mpmath, exact integers."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import block_diag
from scipy.signal import cont2discrete, dlsim
from torch import Tensor, nn

from kexue_lib.recurrence import s4
from kexue_lib.recurrence.block import SequenceBlock, SequenceModel
from tests.opinfo import as_users_call


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def real_readout(N: int, seed: int = 0) -> Tensor:
    """A readout of conjugate pairs, so that the kernel is real."""
    C = drawn(N, seed=seed, dtype=torch.complex128)
    return (C + C.flip(0).conj()) / 2


@pytest.mark.parametrize("N", [1, 2, 3, 8, 17, 64, 256])
def test_diagonal_plus_rank_one_is_legs(N: int) -> None:
    Lam, P, B, V = s4.legs_dplr(N)
    n, k = np.mgrid[:N, :N]
    legs = -np.where(k < n, np.sqrt((2 * n + 1.0) * (2 * k + 1)), np.where(k == n, n + 1, 0))
    v = np.sqrt(2 * np.arange(N) + 1.0)
    scale = abs(legs).max()
    back = V @ (torch.diag(Lam) - torch.outer(P, P.conj())) @ V.mH
    assert abs(back.numpy() - legs).max() < 1e-14 * scale * N
    assert abs((V @ B).numpy() - v).max() < 1e-13 * N
    assert abs((V.mH @ V).numpy() - np.eye(N)).max() < 1e-14 * N
    assert (Lam.real == -0.5).all()
    assert (Lam.imag.diff() > 0).all()
    assert torch.equal(Lam, Lam.flip(0).conj())
    assert torch.equal(P, P.flip(0))
    assert (B.real > 0).all()
    assert (B.imag == 0).all()
    dense, source, same = s4.legs_nplr(N)
    assert abs(dense.numpy() - legs).max() < 1e-14 * scale
    assert torch.equal(source, same)


def test_the_largest_frequency_is_near_n_squared_over_pi() -> None:
    for N, top in ((8, 19.9), (16, 81.0), (32, 325.0), (64, 1303.0)):
        largest = s4.legs_dplr(N)[0].imag.max().item()
        assert abs(largest / top - 1) < 3e-3
        assert abs(largest * math.pi / N**2 - 1) < 0.05


@pytest.mark.parametrize("N", [2, 5, 8])
def test_discretised_as_scipy_does(N: int) -> None:
    Lam, P, B, V = s4.legs_dplr(N)
    A, source, _ = s4.legs_nplr(N)
    Ab, Bb = s4.discretize_dplr(Lam, P, P.conj(), B, torch.tensor([0.02, 0.3], dtype=torch.float64))
    for i, dt in enumerate((0.02, 0.3)):
        system = (A.numpy(), source.numpy()[:, None], np.eye(N), np.zeros((N, 1)))
        expected, held, *_ = cont2discrete(system, dt, method="bilinear")
        torch.testing.assert_close((V @ Ab[i] @ V.mH).real, torch.from_numpy(expected), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close((V @ Bb[i]).real, torch.from_numpy(held[:, 0]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("N", "L"), [(1, 1), (2, 3), (4, 16), (63, 200), (64, 1024)])
@pytest.mark.parametrize("dt", [1e-3, 1e-2, 1e-1])
def test_kernel_without_powers_equals_powers(N: int, L: int, dt: float) -> None:
    Lam, P, B, V = s4.legs_dplr(N)
    C = real_readout(N)
    # The dense, real system: the same numbers by another road.
    A, source, _ = s4.legs_nplr(N)
    system = (A.numpy(), source.numpy()[:, None], (C @ V.mH).real.numpy()[None], np.zeros((1, 1)))
    Ad, Bd, *_ = cont2discrete(system, dt, method="bilinear")  # its C reads the mean of two states
    x, expected = Bd[:, 0], []
    for _ in range(L):
        expected.append((system[2] @ x)[0])
        x = Ad @ x
    expected = torch.tensor(np.array(expected))
    Ab, Bb = s4.discretize_dplr(Lam, P, P.conj(), B, dt)
    Ct = s4.truncate_readout(C, Ab, L)
    arguments, n = (Lam, P, P.conj(), B, Ct), N // 2
    size = expected.abs().max().item()
    close = lambda x, atol: torch.testing.assert_close(
        x.to(torch.float64), expected, rtol=0, atol=atol * max(size, 0.05)
    )
    close(s4.ssm_kernel_naive(Ab, Bb, C, L).real, 1e-12)
    full = s4.dplr_kernel(*arguments, dt, L)
    close(full.real, 1e-12)
    assert full.imag.abs().max() < 1e-14
    half = [x.to(torch.complex64) for x in arguments]
    close(s4.dplr_kernel(*half, dt, L).real, 8e-6)
    if N % 2 == 0:
        pair = [x[n:] for x in (Lam, P, B, Ct)]
        close(s4.s4_kernel(*pair, dt, L), 1e-12)
        close(s4.s4_kernel(*(x.to(torch.complex64) for x in pair), dt, L), 4e-6)


def test_batches_of_steps_and_readouts() -> None:
    Lam, P, B, _ = s4.legs_dplr(6)
    dt, Ct = torch.tensor([[0.1], [0.2]], dtype=torch.float64), drawn(4, 6, dtype=torch.complex128)
    together = s4.dplr_kernel(Lam, P, P.conj(), B, Ct, dt, 9)
    assert together.shape == (2, 4, 9)
    torch.testing.assert_close(together[1, 2], s4.dplr_kernel(Lam, P, P.conj(), B, Ct[2], 0.2, 9))
    whole = s4.s4_kernel(Lam[3:], P[3:], B[3:], Ct[:, 3:], dt, 9)
    torch.testing.assert_close(whole[1, 2], s4.s4_kernel(Lam[3:], P[3:], B[3:], Ct[2, 3:], 0.2, 9))


def test_truncated_readout_and_back() -> None:
    Lam, P, B, _ = s4.legs_dplr(8)
    Ab, Bb = s4.discretize_dplr(Lam, P, P.conj(), B, 0.01)
    C, L = real_readout(8), 50
    Ct = s4.truncate_readout(C, Ab, L)
    power = np.linalg.matrix_power(Ab.numpy(), L)
    torch.testing.assert_close(Ct, torch.from_numpy(C.numpy() @ (np.eye(8) - power)))
    torch.testing.assert_close(s4.recover_readout(Ct, Ab, L), C, rtol=1e-9, atol=1e-10)
    # The truncated readout used at twice its length does not give the kernel: it gives one whose two halves add up.
    twice = s4.dplr_kernel(Lam, P, P.conj(), B, Ct, 0.01, 2 * L)
    once = s4.ssm_kernel_naive(Ab, Bb, C, L)
    assert (twice[:L] - once).abs().max() > 0.01 * once.abs().max()
    torch.testing.assert_close(twice[:L] + twice[L:], once)


def test_convolution_of_integers_and_shapes() -> None:
    u, k = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([1.0, 0, 2, 1])
    expected = np.stack([np.convolve(x, k.numpy())[:4] for x in u.numpy()])
    assert s4.causal_conv(u, k).round().tolist() == expected.tolist()
    for L in (1, 2, 3, 5, 12, 13, 100):
        x, y = drawn(3, 1, L), drawn(2, L, seed=1)
        full = torch.stack([torch.from_numpy(np.convolve(a[0], b)[:L]) for a in x for b in y]).reshape(3, 2, L)
        torch.testing.assert_close(s4.causal_conv(x, y), full)
    assert s4.causal_conv(torch.zeros(3, 0), torch.zeros(0)).shape == (3, 0)
    half = s4.causal_conv(u.bfloat16(), k.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.float().round().tolist() == expected.tolist()


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_diagonal_kernel_is_scipys_response(method: str) -> None:
    Lam, C, B, dt, L = s4.s4d_init(3, "inv"), drawn(3, dtype=torch.complex128), drawn(3, seed=1) + 1j, 0.07, 37
    A = block_diag(*[[[x.real, -x.imag], [x.imag, x.real]] for x in Lam.tolist()])
    source = torch.view_as_real(B).flatten().numpy()[:, None]
    readout = (
        2 * torch.view_as_real(C.conj().resolve_conj()).flatten().numpy()[None]
    )  # 2 Re(c x) = 2 (c_r x_r - c_i x_i)
    system = cont2discrete((A, source, readout, np.zeros((1, 1))), dt, method=method)
    _, response, _ = dlsim((system[0], system[1], readout @ system[0], readout @ system[1], dt), np.eye(L)[0])
    # dlsim reads the state before the input: with C A and C B in place of C and D it reads the state behind it.
    kernel = s4.s4d_kernel(Lam, B, C, dt, L, method=method)
    torch.testing.assert_close(kernel, torch.from_numpy(response[:, 0]), rtol=1e-10, atol=1e-12)


def test_phases_of_long_kernels_keep_their_digits() -> None:
    Lam, dt, L = torch.tensor([-0.5 + 200j], dtype=torch.complex64), torch.tensor(0.1), 4096
    one = torch.ones(1, dtype=torch.complex64)
    kernel = s4.s4d_kernel(Lam * 1e-3, one, one, dt, L)
    with mpmath.workdps(40):
        z = mpmath.mpc(complex((Lam * 1e-3).item()))
        step = mpmath.mpf(dt.item())
        gain = (mpmath.exp(step * z) - 1) / z
        expected = [float(2 * (gain * mpmath.exp(step * z * k)).real) for k in (0, 1, 100, 4095)]
    assert max(abs(kernel[k].item() - x) for k, x in zip((0, 1, 100, 4095), expected)) < 1e-7 * 0.2 * 4


def test_a_pole_at_zero_adds_up() -> None:
    zero = torch.zeros(1, dtype=torch.complex128)
    kernel = s4.s4d_kernel(zero, zero + 1, zero + 1, 0.25, 4)
    assert kernel.tolist() == [0.5] * 4


def test_starting_poles() -> None:
    j = np.arange(4)
    np.testing.assert_allclose(s4.s4d_init(4).numpy(), -0.5 + 1j * np.pi * j)
    np.testing.assert_allclose(s4.s4d_init(4, "inv").numpy(), -0.5 + 1j * 8 / np.pi * (8 / (2 * j + 1) - 1))
    assert torch.equal(s4.s4d_init(4, "legs"), s4.legs_dplr(8)[0][4:])


def layers(dtype: torch.dtype = torch.float64) -> list[nn.Module]:
    made = [s4.S4(3, 8, l_max=40, generator=generator(), dtype=dtype)]
    for kind in ("lin", "inv", "legs"):
        for method in ("zoh", "bilinear"):
            made.append(s4.S4D(3, 8, kind=kind, method=method, generator=generator(1), dtype=dtype))
    return made


def stepwise(layer: nn.Module, u: Tensor) -> Tensor:
    state, outputs = layer.initial_state(*u.shape[:-2]), []
    for t in range(u.shape[-2]):
        y, state = layer.step(u[..., t, :], state)
        outputs.append(y)
    return torch.stack(outputs, -2)


@pytest.mark.parametrize(("length", "training"), [(1, False), (2, False), (39, False), (40, False), (7, True)])
def test_both_views_of_every_layer(length: int, training: bool) -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        for layer in layers(dtype):
            layer.train(training)
            u = drawn(2, length, 3).to(dtype)
            torch.testing.assert_close(stepwise(layer, u), layer(u), rtol=0, atol=tolerance)


def test_s4_is_the_dense_legs_system() -> None:
    layer, N, L = s4.S4(1, 8, l_max=60, generator=generator(3), dtype=torch.float64), 8, 60
    dt = layer.log_dt.exp().item()
    A, B, _ = s4.legs_nplr(N)
    system = (A.numpy(), B.numpy()[:, None], np.eye(N), np.zeros((N, 1)))
    Ad, Bd, _, _, _ = cont2discrete(system, dt, method="bilinear")
    Ct = torch.view_as_complex(layer.Ct.detach())[0].numpy()
    V = s4.legs_dplr(N)[3].numpy()
    readout = np.concatenate([Ct[::-1].conj(), Ct]) @ V.conj().T
    readout = np.linalg.solve((np.eye(N) - np.linalg.matrix_power(Ad, L)).T, readout.real)
    u = drawn(L, seed=5).numpy()
    _, y, _ = dlsim((Ad, Bd, readout[None] @ Ad, readout[None] @ Bd + layer.D.item(), dt), u)
    out = layer(torch.from_numpy(u)[:, None])
    torch.testing.assert_close(out, torch.from_numpy(y), rtol=1e-9, atol=1e-9)


def test_steps_follow_changed_parameters() -> None:
    for layer in layers():
        layer.eval()
        u = drawn(1, 5, 3)
        stepwise(layer, u)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(0.9)
        torch.testing.assert_close(stepwise(layer, u), layer(u), rtol=0, atol=1e-9)
        other = type(layer)(3, 8, **({"l_max": 40} if isinstance(layer, s4.S4) else {"method": layer.method}))
        layer.load_state_dict(other.double().state_dict())
        torch.testing.assert_close(stepwise(layer, u), layer(u), rtol=0, atol=1e-9)


def test_gradients_of_steps_in_training_are_those_of_the_kernel() -> None:
    for layer in layers():
        u = drawn(6, 3)
        one = torch.autograd.grad(layer(u).square().sum(), layer.parameters())
        other = torch.autograd.grad(stepwise(layer, u).square().sum(), layer.parameters())
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


def test_another_sampling_rate() -> None:
    """A held input at twice the rate: exact with "zoh"; with "bilinear" the same up to the square of the step."""
    held = drawn(10, 3)
    twice = held.repeat_interleave(2, 0)
    for layer in layers():
        other = layer.resampled(2.0)
        out, fast = layer(held), other(twice)[1::2]
        if isinstance(layer, s4.S4D) and layer.method == "zoh":
            torch.testing.assert_close(fast, out)
        if isinstance(layer, s4.S4):
            assert other.l_max == 80
            torch.testing.assert_close(stepwise(other.eval(), twice), other(twice), rtol=0, atol=1e-9)
        with torch.no_grad():
            layer.log_dt += math.log(0.01)
        coarse, smooth = layer(held), layer.resampled(2.0)(twice)[1::2]
        assert (smooth - coarse).abs().max() < 1e-3 * coarse.abs().max()
        back = layer.resampled(2.0).resampled(0.5)
        torch.testing.assert_close(back(held), coarse, rtol=1e-8, atol=1e-10)


def test_every_rank_one_part_is_stable() -> None:
    for seed in range(5):
        P, Lam = 5 * drawn(6, seed=seed, dtype=torch.complex128), s4.legs_dplr(6)[0]
        Ab, _ = s4.discretize_dplr(Lam, P, P.conj(), P, 0.3)
        assert torch.linalg.eigvals(Ab).abs().max() < 1


def test_workspace_of_a_long_kernel() -> None:
    Lam, P, B, _ = (x.to(torch.complex64)[..., 32:] for x in s4.legs_dplr(64))
    Ct = drawn(256, 32, dtype=torch.complex64).requires_grad_()
    dt, now, peak = torch.linspace(1e-3, 0.1, 256), 0, 0
    with torch.profiler.profile(profile_memory=True) as profile:
        s4.s4_kernel(Lam, P, B, Ct, dt, 4096).sum().backward()
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    table = 256 * 2049 * 32 * 4
    assert 4 * 256 * 4096 < peak < 64e6 < table  # one whole table alone would not fit


def test_a_model_of_blocks_steps_as_it_runs() -> None:
    blocks = [SequenceBlock(s4.S4D(4, 8, generator=generator(i)), 4, generator=generator(i)) for i in range(2)]
    model = SequenceModel(blocks, d_in=1, d_out=2, readout="each", generator=generator()).eval()
    u = drawn(3, 20, 1).float()
    torch.testing.assert_close(stepwise(model, u), model(u), rtol=0, atol=1e-4)


def test_half_precision_input() -> None:
    for layer in layers(torch.float32):
        u = drawn(2, 30, 3).bfloat16()
        assert layer(u).dtype == torch.bfloat16
        torch.testing.assert_close(layer(u).float(), layer(u.float()), rtol=1e-2, atol=1e-2)
        assert layer(u[:, :0]).shape == (2, 0, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: s4.S4(2, 7, l_max=4), ValueError, "d_state: got 7, expected an even integer"),
        (lambda: s4.S4D(2, 0), ValueError, "d_state: got 0, expected at least 2"),
        (lambda: s4.S4D(0), ValueError, "d_model: got 0"),
        (lambda: s4.S4(2, l_max=0), ValueError, "l_max: got 0"),
        (lambda: s4.S4D(2, kind="random"), ValueError, "kind: got 'random', expected 'lin', 'inv' or 'legs'"),
        (lambda: s4.S4D(2, method="euler"), ValueError, "method: got 'euler', expected 'zoh' or 'bilinear'"),
        (lambda: s4.S4D(2, dt_min=0.2), ValueError, "dt_min: got 0.2"),
        (lambda: s4.S4D(2, dt_min=0.0), ValueError, "dt_min: got 0.0"),
        (lambda: s4.S4(2, 4, l_max=8)(torch.zeros(9, 2)), ValueError, "L: got 9, expected at most l_max = 8"),
        (lambda: s4.S4D(2)(torch.zeros(9, 3)), ValueError, "u: got shape .9, 3., expected .*d_model"),
        (lambda: s4.S4D(2).step(torch.zeros(3), None), ValueError, "u: got shape .3,."),
        (lambda: s4.S4D(2)(torch.zeros(9, 2, dtype=torch.complex64)), TypeError, "u: got torch.complex64"),
        (lambda: s4.S4D(2).resampled(0.0), ValueError, "rate: got 0.0"),
        (lambda: s4.legs_dplr(0), ValueError, "N: got 0"),
        (lambda: s4.s4d_init(2, "linear"), ValueError, "kind: got 'linear'"),
        (lambda: s4.truncate_readout(torch.ones(1), torch.ones(1, 1), 0), ValueError, "L: got 0"),
        (lambda: s4.recover_readout(torch.ones(1), torch.ones(1, 1), 1.5), TypeError, "L: got 1.5"),
        (lambda: s4.ssm_kernel_naive(torch.ones(1, 1), torch.ones(1), torch.ones(1), 0), ValueError, "L: got 0"),
        (lambda: s4.dplr_kernel(*[torch.ones(1) * 1j] * 5, 0.1, 0), ValueError, "L: got 0"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], message: str) -> None:
    with as_users_call(), pytest.raises(error, match=message):
        call()
