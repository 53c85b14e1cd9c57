"""parallel_rnn: the loop in float64, Jacobians by automatic differentiation, PyTorch's and SciPy's own methods."""

from __future__ import annotations

import math
import warnings
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import root
from torch import nn
from torch.func import jacfwd, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kexue_lib.recurrence.parallel_rnn import (
    FixedIterationRNN,
    GRUCell,
    LSTMCell,
    MinGRU,
    TanhCell,
    cell_jacobian,
    lyapunov_exponents,
    parallel_rnn,
    sequential_rnn,
)
from tests.opinfo import as_users_call

METHODS = ("jacobi", "constant", "input", "newton", "quasi")


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tanh_cell(n: int, radius: float, seed: int = 0) -> TanhCell:
    A = drawn(n, n, seed=seed)
    return TanhCell(A * radius / torch.linalg.eigvals(A).abs().max())


def cells() -> dict[str, tuple[nn.Module, int]]:
    """Each cell with the width of its input."""
    generator = torch.Generator().manual_seed(1)
    double = {"generator": generator, "dtype": torch.float64}
    return {"tanh": (tanh_cell(3, 0.9), 3), "gru": (GRUCell(2, 3, **double), 2), "lstm": (LSTMCell(2, 3, **double), 2)}


def options(cell: nn.Module, method: str) -> dict:
    n = cell.state_size
    return {
        "method": method,
        **({"transition": 0.5 * torch.eye(n, dtype=torch.float64)} if method == "constant" else {}),
    }


class Logistic(nn.Module):
    """A cell without derivatives of its own, whose map is a polynomial."""

    state_size = 2

    def forward(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return x.square() / 2 + x.flip(-1) / 3 + u


@pytest.mark.parametrize("name", ["tanh", "gru", "lstm"])
def test_jacobian_in_closed_form_is_the_derivative(name: str) -> None:
    cell, m = cells()[name]
    x, u = 2 * drawn(7, cell.state_size, seed=3), drawn(7, m, seed=4)
    expected = vmap(jacfwd(cell))(x, u)
    torch.testing.assert_close(cell.jacobian(x, u), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(cell_jacobian(cell, x, u), expected, rtol=1e-12, atol=1e-13)
    diagonal = expected.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(cell.jacobian_diagonal(x, u), diagonal, rtol=1e-12, atol=1e-13)


def test_jacobian_of_any_cell_is_found_by_differentiation() -> None:
    x, u = drawn(2, 5, 2), drawn(2, 5, 2, seed=1)
    J = cell_jacobian(Logistic(), x, u)
    expected = torch.diag_embed(x) + torch.tensor([[0.0, 1 / 3], [1 / 3, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(J, expected)


def test_lstm_is_that_of_pytorch() -> None:
    theirs = nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    ours = LSTMCell(3, 5, dtype=torch.float64)
    with torch.no_grad():
        ours.W.copy_(theirs.weight_ih_l0)
        ours.U.copy_(theirs.weight_hh_l0)
        ours.b.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
    u = drawn(2, 200, 3)
    torch.testing.assert_close(parallel_rnn(ours, u)[..., :5], theirs(u)[0], rtol=0, atol=1e-10)


def test_gru_is_that_of_pytorch_where_the_reset_gate_is_open() -> None:
    """With r = 1 it does not matter on which side of U_h it multiplies; PyTorch's z is our 1 - z."""
    theirs = nn.GRU(3, 5, batch_first=True, dtype=torch.float64)
    ours = GRUCell(3, 5, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight_ih_l0[:5] = theirs.weight_hh_l0[:5] = 0
        theirs.bias_ih_l0[:5], theirs.bias_hh_l0[10:] = 50.0, 0.0
        flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64).repeat_interleave(5)
        order = torch.cat([torch.arange(5, 10), torch.arange(5), torch.arange(10, 15)])  # r, z, h to z, r, h
        ours.W.copy_(theirs.weight_ih_l0[order] * flip[:, None])
        ours.U.copy_(theirs.weight_hh_l0[order] * flip[:, None])
        ours.b.copy_((theirs.bias_ih_l0 + theirs.bias_hh_l0)[order] * flip)
    u = drawn(2, 200, 3)
    torch.testing.assert_close(parallel_rnn(ours, u), theirs(u)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["tanh", "gru", "lstm"])
def test_every_method_finds_the_states_of_the_loop(name: str, method: str) -> None:
    cell, m = cells()[name]
    u, x0 = drawn(2, 3, 150, m), drawn(2, 3, cell.state_size, seed=5)
    info = parallel_rnn(cell, u, x0, return_info=True, **options(cell, method))
    torch.testing.assert_close(info.states, sequential_rnn(cell, u, x0), rtol=0, atol=1e-8)
    assert info.converged
    assert len(info.residuals) == info.iterations <= 150


@pytest.mark.parametrize("method", METHODS)
def test_first_states_are_exact_after_as_many_iterations(method: str) -> None:
    """Wild weights, so that nothing converges before; and the states behind are not exact."""
    cell = tanh_cell(4, 3.0)
    u, exact = drawn(12, 4, seed=2), sequential_rnn(cell, drawn(12, 4, seed=2))
    extra = {"transition": cell.A.detach()} if method == "constant" else {}
    for count in range(1, 13):
        states = parallel_rnn(cell, u, method=method, max_iters=count, tol=0.0, **extra)
        torch.testing.assert_close(states[:count], exact[:count], rtol=0, atol=1e-13)
        if count < 3:
            assert (states[count:] - exact[count:]).abs().max() > 1e-3


def test_transients_beyond_the_range_of_floats_end_at_the_exact_states() -> None:
    cell, u = tanh_cell(3, 0.9), drawn(220, 3, seed=1)
    info = parallel_rnn(cell, u, method="constant", transition=80 * cell.A.detach(), return_info=True)
    assert not info.residuals.isfinite().all() or info.residuals.max() > 1e200
    assert info.converged
    torch.testing.assert_close(info.states, sequential_rnn(cell, u), rtol=0, atol=1e-12)


def test_scipy_finds_the_same_root() -> None:
    cell, u = tanh_cell(2, 0.9), drawn(40, 2)

    def residual(x: np.ndarray) -> np.ndarray:
        states = torch.from_numpy(x.reshape(40, 2))
        before = torch.cat([torch.zeros(1, 2, dtype=torch.float64), states[:-1]])
        return (states - cell(before, u)).detach().numpy().ravel()

    found = root(residual, np.zeros(80), method="krylov", options={"fatol": 1e-11})
    np.testing.assert_allclose(parallel_rnn(cell, u).detach().numpy().ravel(), found.x, atol=1e-9)


def test_newton_converges_quadratically() -> None:
    info = parallel_rnn(tanh_cell(3, 0.9), drawn(300, 3), return_info=True, tol=1e-13)
    small = [r.item() for r in info.residuals if 1e-7 < r < 0.1]
    assert len(small) >= 2
    assert all(later < 10 * earlier**2 for earlier, later in pairwise(small))


def test_newton_is_exact_at_once_for_a_linear_cell() -> None:
    A = 0.4 * drawn(3, 3)

    class Linear(nn.Module):
        state_size = 3

        def forward(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return x @ A + u

    u = drawn(100, 3, seed=1)
    one = parallel_rnn(Linear(), u, max_iters=1, tol=0.0)
    torch.testing.assert_close(one, sequential_rnn(Linear(), u), rtol=0, atol=1e-11)


def test_damping_goes_from_newton_to_jacobi() -> None:
    cell, u = tanh_cell(3, 0.9), drawn(100, 3)
    run = lambda **k: parallel_rnn(cell, u, max_iters=4, tol=0.0, **k)
    torch.testing.assert_close(run(damping=1.0), run(method="jacobi"), rtol=0, atol=0)
    start, M = torch.zeros(3, dtype=torch.float64), 0.7 * cell.jacobian(torch.zeros(100, 3).double(), u)
    x, by_hand = start, []
    for t in range(100):  # one iteration from zero, by its definition
        x = cell(start, u[t]) + M[t] @ x
        by_hand.append(x)
    one = parallel_rnn(cell, u, max_iters=1, tol=0.0, damping=0.3)
    torch.testing.assert_close(one, torch.stack(by_hand), rtol=0, atol=1e-12)


def test_warm_start_at_the_solution_needs_one_iteration() -> None:
    cell, u = tanh_cell(3, 0.9), drawn(100, 3)
    assert parallel_rnn(cell, u, init=sequential_rnn(cell, u).detach(), return_info=True).iterations == 1


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_loop_whatever_the_method(method: str) -> None:
    for cell, m in cells().values():
        u, x0 = drawn(2, 30, m).requires_grad_(), drawn(2, cell.state_size, seed=5).requires_grad_()
        weight = drawn(2, 30, cell.state_size, seed=6)
        sources = (u, x0, *cell.parameters())
        ours = parallel_rnn(cell, u, x0, **options(cell, method))
        grads = torch.autograd.grad(ours, sources, weight)
        expected = torch.autograd.grad(sequential_rnn(cell, u, x0), sources, weight)
        for one, other in zip(grads, expected):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


class Plain(nn.Module):
    """A cell whose weight is whatever tensor it is given."""

    state_size = 2

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.weight + u)


def test_cell_whose_gradient_would_be_lost_is_refused() -> None:
    weight, u = (0.5 * torch.eye(2, dtype=torch.float64)).requires_grad_(), drawn(20, 2)
    for inputs in (u, u.clone().requires_grad_()):
        with pytest.raises(ValueError, match=r"cell: got one that depends on a tensor with requires_grad"):
            parallel_rnn(Plain(weight), inputs)
    with torch.no_grad():
        states = parallel_rnn(Plain(weight), u)
    torch.testing.assert_close(parallel_rnn(Plain(weight.detach()), u), states, rtol=0, atol=0)
    ours, loop = (
        torch.autograd.grad(run(cell, u).square().sum(), cell.weight)[0]
        for run, cell in ((f, Plain(nn.Parameter(weight.detach()))) for f in (parallel_rnn, sequential_rnn))
    )
    torch.testing.assert_close(ours, loop, rtol=1e-9, atol=1e-9)


def test_gradient_of_states_that_do_not_solve_the_equations_is_another() -> None:
    """What the docstring warns of; the loop's gradient is the oracle, and reached with enough iterations."""
    cell, u = tanh_cell(8, 0.9), drawn(200, 8).requires_grad_()
    of = lambda states: torch.autograd.grad(states.square().sum(), u)[0]
    expected = of(sequential_rnn(cell, u))
    off = [
        (of(parallel_rnn(cell, u, method="jacobi", max_iters=k, tol=0.0)) - expected).abs().max() / expected.abs().max()
        for k in (3, 200)
    ]
    assert off[0] > 0.1
    assert off[1] < 1e-9


def test_converged_in_chaos_means_the_equations_not_the_loop() -> None:
    cell, u = tanh_cell(16, 4.0), 0.3 * drawn(512, 16, seed=1)
    assert lyapunov_exponents(cell, u)[0] > 0.05
    info = parallel_rnn(cell, u, return_info=True)
    before = torch.cat([torch.zeros_like(info.states[:1]), info.states[:-1]])
    assert info.converged
    assert (cell(before, u) - info.states).abs().max() < 1e-9
    assert (info.states - sequential_rnn(cell, u)).abs().max() > 0.1


def test_jacobian_of_the_unrolled_loop() -> None:
    cell, u = tanh_cell(2, 0.9), drawn(12, 2)
    whole = jacrev(lambda v: sequential_rnn(cell, v))(u)
    rows = torch.autograd.functional.jacobian(lambda v: parallel_rnn(cell, v), u)
    torch.testing.assert_close(rows, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "gru", "lstm"])
def test_first_and_second_derivatives_by_finite_differences(name: str) -> None:
    cell, m = cells()[name]
    inputs = (drawn(4, m).requires_grad_(), drawn(cell.state_size, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda *a: parallel_rnn(cell, *a, tol=1e-14), inputs)
    assert torch.autograd.gradgradcheck(lambda *a: parallel_rnn(cell, *a, tol=1e-14), inputs)


def test_second_derivatives_by_the_weights_are_those_of_the_loop() -> None:
    cell, u = tanh_cell(2, 0.8), drawn(10, 2).requires_grad_()

    def penalty(states: torch.Tensor) -> list[torch.Tensor]:
        grads = torch.autograd.grad(states.square().sum(), (u, cell.A), create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in grads), (u, cell.A)))

    for one, other in zip(penalty(parallel_rnn(cell, u)), penalty(sequential_rnn(cell, u))):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


class _Peak(TorchDispatchMode):
    """Bytes of all storages alive, at their most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in self.alive:
                storage = x.untyped_storage()
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def test_memory_is_a_few_jacobians() -> None:
    n, length = 32, 1024
    cell = GRUCell(4, n, generator=torch.Generator().manual_seed(0))
    u = drawn(length, 4, dtype=torch.float32).requires_grad_()
    with _Peak() as seen:
        parallel_rnn(cell, u).sum().backward()
    assert seen.peak <= 4 * length * n**2 * 4


def test_lyapunov_exponents_of_known_maps() -> None:
    A = torch.diag(torch.tensor([0.5, 0.25], dtype=torch.float64))
    rates = lyapunov_exponents(TanhCell(A), torch.zeros(3, 50, 2, dtype=torch.float64))
    torch.testing.assert_close(rates, torch.tensor([0.5, 0.25]).double().log().expand(3, 2))
    cell, u = tanh_cell(4, 1.1), drawn(400, 4)
    J = cell.jacobian(torch.cat([torch.zeros(1, 4).double(), sequential_rnn(cell, u)[:-1]]), u)
    product, logs = torch.eye(4, dtype=torch.float64), 0.0
    for step in J:
        product = step @ product
        logs, product = logs + product.norm().log(), product / product.norm()
    rates = lyapunov_exponents(cell, u)
    assert rates[0].item() == pytest.approx((logs / 400).item(), abs=0.01)
    assert rates.sum().item() == pytest.approx(torch.linalg.slogdet(J).logabsdet.mean().item(), abs=1e-9)


def test_mingru_is_its_own_loop() -> None:
    model = MinGRU(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, h = drawn(2, 50, 3), drawn(2, 4, seed=1)
    states = model(u, h)
    for t in range(50):
        h = model.step(u[:, t], h)
        torch.testing.assert_close(states[:, t], h, rtol=0, atol=1e-12)


def test_many_rounds_of_the_fixed_iteration_are_the_network_that_it_approximates() -> None:
    """For PQ = diag(λ): the tanh network with A = Re(Q) read off from real numbers."""
    model = FixedIterationRNN(3, 3, rounds=40, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        model.angle.zero_()
        Q = drawn(3, 3)
        size = (-model.decay.exp()).exp()
        P = torch.linalg.inv(Q) @ torch.diag(size)
        model.P.copy_(torch.stack([P, torch.zeros_like(P)], -1))
        model.Q.copy_(torch.stack([Q, torch.zeros_like(Q)], -1))
    u = drawn(40, 3, seed=3)
    A = P @ Q
    expected = sequential_rnn(TanhCell(A.T), u)
    torch.testing.assert_close(model(u) @ torch.linalg.inv(A), expected, rtol=0, atol=1e-6)


def test_arguments_are_refused_by_name() -> None:
    cell, u = tanh_cell(2, 0.5), drawn(5, 2)
    bad = [
        (lambda: sequential_rnn(cell, u.to(torch.complex64)), TypeError, "u: got torch.complex64"),
        (lambda: TanhCell(drawn(2, 3)), ValueError, r"A: got shape \(2, 3\)"),
        (lambda: GRUCell(0, 3), ValueError, "d_in: got 0"),
        (lambda: MinGRU(2, 1.5), TypeError, "d: got 1.5"),
    ]
    for call, error, message in bad:
        with as_users_call(), pytest.raises(error, match=message):
            call()


def test_what_did_not_converge_is_said() -> None:
    cell, u = tanh_cell(3, 2.0), drawn(200, 3)
    with pytest.warns(RuntimeWarning, match="not converged after 3 iterations"):
        parallel_rnn(cell, u, max_iters=3)
    info = parallel_rnn(cell, u, max_iters=3, return_info=True)
    assert not info.converged
    assert info.iterations == 3
    assert parallel_rnn(cell, u[:5], max_iters=9, tol=0.0, return_info=True).iterations == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_rnn(cell, u, max_iters=3, tol=0.0)  # asked for


def test_empty_batch_and_one_step() -> None:
    cell = tanh_cell(3, 0.9)
    assert parallel_rnn(cell, drawn(0, 5, 3)).shape == (0, 5, 3)
    u = drawn(2, 1, 3).requires_grad_()
    states = parallel_rnn(cell, u)
    torch.testing.assert_close(states, u.tanh(), rtol=0, atol=0)
    assert math.isfinite(torch.autograd.grad(states.sum(), u)[0].sum().item())
