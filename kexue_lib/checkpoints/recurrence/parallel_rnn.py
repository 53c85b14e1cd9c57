"""How many iterations each method takes, beside the exponents of the trajectory, and networks that do not converge.

Run by ``python -m kexue_lib.checkpoints.recurrence.parallel_rnn`` with one thread, about eight minutes. The digits are
read as 64 pixels, one after the other; every rate is chosen on two seeds, and what it reaches measured on five others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from kexue_lib.checkpoints import rounded, save
from kexue_lib.data import digits, minibatches
from kexue_lib.recurrence.parallel_rnn import (
    FixedIterationRNN,
    TanhCell,
    cell_jacobian,
    lyapunov_exponents,
    parallel_rnn,
    sequential_rnn,
)
from kexue_lib.recurrence.scan import matrix_scan
from kexue_lib.training import fit

__all__ = ["CONFIGS", "METHODS", "PixelModel", "StackedLinear", "main", "network", "scaled_cell", "signal"]

METHODS = ("jacobi", "constant", "input", "newton", "quasi")
CONFIGS = (
    (0.5, 1.0),
    (0.9, 1.0),
    (1.2, 1.0),
    (0.9, 0.1),
    (0.9, 0.03),
    (0.9, 0.01),
)  # spectral radius of A, deviation of u
SWEEPS = {"16": (0.3, (0.8, 1.2, 1.5, 2.0, 2.5, 3.0)), "8": (1.0, (1.2, 1.5, 2.0, 2.5, 3.0, 4.0))}
GROWN = ((16, 0.8), (8, 1.5), (8, 2.0), (8, 4.0))  # n and gain
LENGTHS = (256, 512, 1024, 2048)
RATES, STEPS, WIDTH = (1e-3, 3e-3, 1e-2, 3e-2), 300, 32
CHOOSING, COMPARING = range(2), range(2, 7)  # seeds


def scaled_cell(n: int, seed: int, *, radius: float | None = None, gain: float | None = None) -> TanhCell:
    """Return a tanh cell with normal weights in float64.

    Args:
        n: numbers of state.
        seed: of the weights.
        radius: the spectral radius to which they are scaled.
        gain: in its place, √n times their deviation.
    """
    A = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if radius:
        return TanhCell(A * (radius / torch.linalg.eigvals(A).abs().max()))
    assert gain is not None  # one of the two is given
    return TanhCell(A * (gain / math.sqrt(n)))


def signal(length: int, n: int, seed: int, scale: float) -> Tensor:
    """Return normal inputs ``(length, n)`` in float64.

    Args:
        length: L.
        n: width.
        seed: of the draw.
        scale: deviation.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    return scale * torch.randn(length, n, generator=generator, dtype=torch.float64)


def apart(states: Tensor, cell: nn.Module, u: Tensor) -> float:
    """Return the largest difference from the states of the loop.

    Args:
        states: ``(L, n)``.
        cell: as for ``parallel_rnn``.
        u: inputs ``(L, m)``.
    """
    return (states - sequential_rnn(cell, u)).abs().max().item()


def transient(cell: nn.Module, u: Tensor) -> float:
    """Return the largest Frobenius norm of a product of successive Jacobians along the trajectory.

    Args:
        cell: as for ``parallel_rnn``.
        u: inputs ``(L, m)``.
    """
    states = sequential_rnn(cell, u)
    J = cell_jacobian(cell, torch.cat([torch.zeros_like(states[:1]), states[:-1]]), u)
    products, largest = J[:0], 0.0
    for step in J:
        products = torch.cat([step @ products, step[None]])
        largest = max(largest, products.flatten(1).norm(dim=1).max().item())
    return largest


def plain(cell: TanhCell, u: Tensor) -> int | None:
    """Return the iteration at which the constant form, without any rescue, is not finite; None if it stays finite.

    Args:
        cell: its matrix is the linear part.
        u: inputs ``(L, n)``.
    """
    x, A = torch.zeros_like(u), cell.A.expand(len(u), *cell.A.shape)
    for iteration in range(1, 301):
        before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
        x = matrix_scan(A, cell(before, u) - before @ cell.A.T)
        if not x.isfinite().all():
            return iteration
    return None


def grown() -> list[dict[str, object]]:
    """Return Newton's iterations by length and by start, beside exponent and largest product; inputs as in the sweep.

    A row for each draw. ``near`` starts at the states of the loop with an error of deviation 0.01, L = 512.
    """
    rows = []
    for n, gain in GROWN:
        scale = SWEEPS[str(n)][0]
        for seed in range(5):
            cell, u = scaled_cell(n, seed, gain=gain), signal(512, n, seed, scale)
            row = {"n": n, "gain": gain, "exponent": lyapunov_exponents(cell, u)[0].item()}
            row["transient"] = transient(cell, u)
            error = 0.01 * torch.randn(512, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            row["near"] = parallel_rnn(cell, u, init=sequential_rnn(cell, u) + error, return_info=True).iterations
            whole = signal(LENGTHS[-1], n, seed, scale)
            row["lengths"] = [parallel_rnn(cell, whole[:L], return_info=True).iterations for L in LENGTHS]
            rows.append(row)
            print(row, flush=True)
    return rows


def counted() -> list[dict[str, object]]:
    """Return iterations to a change of 1e-10, and the largest change on the way; n = 8, L = 1024, five draws.

    A row for each configuration and method, with the largest difference from the loop; None where not converged.
    """
    rows = []
    for radius, scale in CONFIGS:
        for method in METHODS:
            row: dict[str, object] = {"radius": radius, "scale": scale, "method": method, "iterations": [], "peak": []}
            row["off"] = []
            for seed in range(5):
                cell, u = scaled_cell(8, seed, radius=radius), signal(1024, 8, seed, scale)
                extra = {"transition": cell.A.detach()} if method == "constant" else {}
                info = parallel_rnn(cell, u, method=method, return_info=True, **extra)
                row["off"].append(apart(info.states, cell, u))
                row["iterations"].append(info.iterations if info.converged else None)
                row["peak"].append(info.residuals.nan_to_num(1e308, 1e308).max().log10().item())
            rows.append(row)
            print(row, flush=True)
    return rows


def swept() -> list[dict[str, object]]:
    """Return iterations of Newton's method, damped and not, and of Jacobi's, beside the largest exponent; L = 512.

    A row for each draw, with the largest difference of each method's states from the loop's.
    """
    runs = {"newton": {}, "damped": {"damping": 0.4}, "jacobi": {"method": "jacobi"}}
    rows = []
    for n, (scale, gains) in SWEEPS.items():
        for gain in gains:
            for seed in range(5):
                cell, u = scaled_cell(int(n), seed, gain=gain), signal(512, int(n), seed, scale)
                row = {"n": int(n), "gain": gain, "exponent": lyapunov_exponents(cell, u)[0].item()}
                for name, options in runs.items():
                    info = parallel_rnn(cell, u, return_info=True, **options)
                    row[name] = info.iterations if info.converged else None
                    row[f"{name} off"] = apart(info.states, cell, u)
                rows.append(row)
            print(rows[-1], flush=True)
    return rows


class StackedLinear(nn.Module):
    """K times: a linear recurrence with complex numbers, tanh, and the input added, each with weights of its own.

    Args:
        d: width of input and output.
        state: complex numbers of each state.
        layers: K.
        generator: draws the weights as those of ``FixedIterationRNN``.
    """

    def __init__(self, d: int, state: int, *, layers: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        parts = (FixedIterationRNN(d, state, rounds=1, generator=generator) for _ in range(layers))
        self.layers = nn.ModuleList(parts)

    def forward(self, u: Tensor) -> Tensor:
        """Return the real output of the last recurrence."""
        inner, out = u, torch.zeros_like(u)
        for layer in self.layers:
            out = layer(inner)
            inner = u + out
        return out


class PixelModel(nn.Module):
    """Pixels to a width, a core over time, and ten scores from its last output.

    Args:
        core: maps ``(batch, L, WIDTH)`` to ``(batch, L, out)``.
        out: width of its output.
    """

    def __init__(self, core: nn.Module | Callable[[Tensor], Tensor], out: int = WIDTH) -> None:
        super().__init__()
        self.enter, self.core, self.leave = nn.Linear(1, WIDTH), core, nn.Linear(out, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(batch, 10)`` of pixels ``(batch, L)``."""
        return self.leave(self.core(self.enter(x[..., None]))[:, -1])


def network(kind: str, seed: int) -> PixelModel:
    """Return a network of about 4 600 parameters.

    Args:
        kind: ``"fixed K"``, K rounds of one iteration with shared weights; ``"stack K"``, K linear recurrences with
            weights of their own.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    name, number = kind.split()
    if name == "fixed":
        return PixelModel(FixedIterationRNN(WIDTH, WIDTH, rounds=int(number), generator=generator))
    return PixelModel(StackedLinear(WIDTH, WIDTH // int(number), layers=int(number), generator=generator))


def accuracy(kind: str, rate: float, seed: int) -> float:
    """Return the share of test digits that are recognised after training; 0 if it diverged.

    Args:
        kind: as for :func:`network`.
        rate: at the start, falling to 0 linearly.
        seed: of weights and batches.
    """
    data = digits(scale="symmetric")
    loss = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])
    falling: Callable[[int], float] = lambda k: 1 - k / STEPS
    model = network(kind, seed)
    sample = minibatches(data.x_train, data.y_train, batch_size=50)
    try:
        fit(
            model,
            loss,
            sample,
            optimizer=lambda p: Adam(p, rate),
            steps=STEPS,
            schedule=falling,
            clip_norm=1.0,
            seed=seed,
            progress=False,
        )
    except FloatingPointError:
        return 0.0
    with torch.no_grad():
        return (model(data.x_test).argmax(-1) == data.y_test).double().mean().item()


def trained() -> dict[str, dict[str, object]]:
    """Return size, best rate, mean accuracy by rate and test accuracies, for each kind of network.

    The rate is chosen on other seeds than those of the accuracies.
    """
    out = {}
    for kind in ("fixed 1", "fixed 2", "fixed 3", "fixed 5", "stack 2", "stack 3"):
        sweep = [sum(accuracy(kind, rate, seed) for seed in CHOOSING) / len(CHOOSING) for rate in RATES]
        rate = RATES[max(range(len(RATES)), key=sweep.__getitem__)]
        size = sum(p.numel() for p in network(kind, 0).parameters())
        scores = [accuracy(kind, rate, seed) for seed in COMPARING]
        out[kind] = {"parameters": size, "rate": rate, "sweep": sweep, "accuracy": scores}
        print(kind, out[kind], flush=True)
    return out


def main() -> None:
    """Run everything and store the table.

    One thread; about eight minutes.
    """
    torch.set_num_threads(1)
    with torch.no_grad():
        overflow = [plain(scaled_cell(8, seed, radius=1.2), signal(1024, 8, seed, 1.0)) for seed in range(5)]
        content = {"iterations": counted(), "sweep": swept(), "growth": grown(), "plain": overflow}
    content["digits"] = trained()
    made_with = {"seed": [0, 6], "rates": list(RATES), "steps": STEPS}
    save("recurrence/parallel_rnn", rounded(content), made_with=made_with)


if __name__ == "__main__":
    main()
