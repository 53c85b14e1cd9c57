"""LegS on a stream of samples: the states after each of them."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Inexact
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_one_of
from kexue_lib._autocast import without_autocast
from kexue_lib._autograd import remember_signature
from kexue_lib.recurrence.hippo import coefficient_scale
from kexue_lib.recurrence.hippo_discretization._steps import METHODS, steps

Method = Literal["forward", "backward", "bilinear", "bilinear_article", "zoh"]
Scaling = Literal["orthonormal", "hippo", "lmu"]


@without_autocast
def legs_scan(
    u: Inexact[Tensor, "*b L"],
    N: int,
    *,
    method: Method = "bilinear",
    scaling: Scaling = "orthonormal",
    return_all: bool = True,
) -> Inexact[Tensor, "..."]:
    r"""Return the LegS state after every sample, :math:`x_1=\sqrt2\,u_0e_0` and one step for each further one.

    .. math:: x_{k+1} = \sqrt2\,u_ke_0 + R_k(x_k-\sqrt2\,u_ke_0)

    ====================  ==============================================================  ====================
    method                :math:`R_k`                                                     error
    ====================  ==============================================================  ====================
    "forward"             :math:`I+\frac1kA`                                              blows up
    "backward"            :math:`(I-\frac1{k+1}A)^{-1}`                                   O(1/L)
    "bilinear"            :math:`(I-\frac1{2(k+1)}A)^{-1}(I+\frac1{2k}A)`                 O(ln L / L²)
    "bilinear_article"    the same; and the input has the weight 1/k, not the trapezoid   O(ln L / L)
    "zoh"                 :math:`\big(\frac{k+1}k\big)^A`                                 none for held samples
    ====================  ==============================================================  ====================

    The errors are upper bounds for a smooth signal whose samples are midpoints, L well above N. "backward" and "zoh"
    shorten every difference of two states. "bilinear" does not: the product of its first k steps has a norm of nearly
    k + 1 up to k = 5N/8 (39 at N = 64, 160 at N = 256). For white noise its last state errs by 2.7 (N = 64) and 4
    (N = 256) times the exact one at L = N, by 0.36 and 0.97 at L = 5N, by 0.07 and 0.24 at L = 16N, where "backward"
    has 0.86 and 0.92, 0.71 and 0.88, 0.50 and 0.77. For rough signals of fewer than about 16N samples take "zoh".

    Args:
        u: samples ``(..., L)``, real or complex; sample k is held on [k, k + 1).
        N: number of coefficients.
        method: see the table.
        scaling: ``"orthonormal"``, ``"hippo"`` or ``"lmu"``, as in ``coefficient_scale``.
        return_all: all states, or the last one only.

    Returns:
        ``(..., L, N)``, entry k after the samples 0 … k; without ``return_all`` ``(..., N)``. In the dtype of u;
        computed in float64. Linear in u and differentiable in it, without intermediate states kept.

    Raises:
        TypeError: u neither floating nor complex, N no integer.
        ValueError: an unknown word, N below 1, no samples without ``return_all``.

    Cost: L steps of O(N²), above N = 768 of O(N) ("forward" above 128; "zoh" always O(N²)); a loop over the samples,
    so ``torch.compile`` stops there. "zoh" evaluates N² Legendre values for each step, anew in each call and once for
    all streams of the batch; for one stream that is most of its time.

    >>> legs_scan(torch.tensor([0.0, 1.0]), 2, method="zoh", scaling="lmu")
    tensor([[0.0000, 0.0000],
            [0.5000, 0.7500]])
    """
    check_one_of("method", method, METHODS)
    wide = check_samples(u, N, scaling)
    if u.shape[-1] == 0 and not return_all:
        raise ValueError(f"u: got shape {tuple(u.shape)}, expected at least one sample for the last state")
    parts = torch.view_as_real(wide).movedim(-1, 0) if u.is_complex() else wide
    x = _scan(parts, N, method, return_all)
    if u.is_complex():
        x = torch.complex(x[0], x[1])
    return (x / coefficient_scale("legs", N, scaling, device=u.device)).to(u.dtype)


def check_samples(u: Tensor, N: int, scaling: str) -> Tensor:
    """Refuse wrong arguments; the samples in float64."""
    check_integer("N", N, 1)
    check_one_of("scaling", scaling, ("orthonormal", "hippo", "lmu"))
    check_dtype("u", u, "floating or complex")
    if u.dim() == 0:
        raise ValueError("u: got shape (), expected (..., L)")
    return u.to(torch.promote_types(u.dtype, torch.float64))


def _scan(u: Tensor, N: int, method: str, return_all: bool) -> Tensor:
    # Only where a graph is traced: the marker brings the compiler's own packages with it.
    run: Any = torch.compiler.disable(_Scan.apply) if torch.compiler.is_compiling() else _Scan.apply
    return run(u, N, method, return_all)


@remember_signature
class _Scan(torch.autograd.Function):
    """The map from samples to states; linear, so that its derivative is itself and its gradient the transpose."""

    @staticmethod
    def forward(u: Tensor, N: int, method: str, return_all: bool) -> Tensor:
        *batch, L = u.shape
        rows = u.reshape(math.prod(batch), L)
        states = rows.new_zeros(len(rows), L if return_all else 1, N)
        if L and len(rows):
            _fill(rows, N, method, states)
        return states.reshape(*batch, L, N) if return_all else states.reshape(*batch, N)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        u, *ctx.options = inputs
        ctx.length = u.shape[-1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _Transposed.apply(g, ctx.length, *ctx.options), None, None, None

    @staticmethod
    def jvp(ctx: Any, du: Tensor, *_: Any) -> Tensor:
        return _Scan.apply(du, *ctx.options)

    @staticmethod
    def vmap(info: Any, in_dims: Any, u: Tensor, *options: Any) -> tuple[Tensor, int]:
        return _Scan.apply(u.movedim(in_dims[0], 0), *options), 0


@remember_signature
class _Transposed(torch.autograd.Function):
    """The transpose of :class:`_Scan`, from weights of the states to weights of the samples."""

    @staticmethod
    def forward(g: Tensor, L: int, N: int, method: str, return_all: bool) -> Tensor:
        batch = g.shape[: -2 if return_all else -1]
        rows = g.reshape(math.prod(batch), L if return_all else 1, N)
        samples = rows.new_zeros(len(rows), L)
        if L and len(rows):
            _fill_transposed(rows, method, samples)
        return samples.reshape(*batch, L)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, _, *ctx.options = inputs
        ctx.inputs = inputs[1:]

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        return _Scan.apply(h, *ctx.options), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor, *_: Any) -> Tensor:
        return _Transposed.apply(dg, *ctx.inputs)

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, *options: Any) -> tuple[Tensor, int]:
        return _Transposed.apply(g.movedim(in_dims[0], 0), *options), 0


def _fill(u: Tensor, N: int, method: str, states: Tensor) -> None:
    """Write the states (b, L or 1, N) of the samples (b, L); z is the state less √2ue₀, in columns."""
    held = math.sqrt(2) * u
    falls = -held.diff().T
    z = u.new_zeros(N, len(u))
    every = states.shape[1] == u.shape[1]
    for k, step in steps(N, method, range(1, u.shape[1]), u.device):
        z[0] += falls[k - 1]
        z = step.apply(z, u[:, k])
        if every:
            states[:, k] = z.T
    if every:
        states[..., 0] += held
    else:
        states[:, 0] = z.T
        states[:, 0, 0] += held[:, -1]


def _fill_transposed(g: Tensor, method: str, samples: Tensor) -> None:
    """Write the weights (b, L) of the samples, from those of the states (b, L or 1, N)."""
    L, N = samples.shape[1], g.shape[-1]
    y = g[:, -1].T.contiguous()
    for k, step in steps(N, method, range(L - 1, 0, -1), g.device):
        back, direct = step.transposed(y)
        samples[:, k] = math.sqrt(2) * (y[0] - back[0]) + direct
        y = back + g[:, k - 1].T if g.shape[1] == L else back
    samples[:, 0] = math.sqrt(2) * y[0]
