"""Eigenvalues: where they come from, how they are drawn and parametrised, and what they amplify."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from kexue_lib._arguments import check_dtype, check_integer, check_number, check_shape


def lru_init(
    d_state: int,
    *,
    r_min: float = 0.9,
    r_max: float = 0.999,
    max_phase: float = 2 * math.pi,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, " d_state"], Float[Tensor, " d_state"], Float[Tensor, " d_state"]]:
    r"""Draw eigenvalues uniformly on a ring, and the factor that keeps the states' variance at that of the inputs.

    .. math:: r^2 \sim U[r_{\min}^2, r_{\max}^2], \quad \theta \sim U(0, \theta_{\max}], \quad
              \nu^{\log} = \log(-\tfrac12\log r^2), \quad \theta^{\log} = \log\theta, \quad
              \gamma^{\log} = \tfrac12\log(1 - r^2)

    Args:
        d_state: how many.
        r_min: inner radius of the ring.
        r_max: outer radius, positive.
        max_phase: largest angle in radians, of the full circle if 2π.
        generator: source of randomness.
        device: of the result.
        dtype: of the result; the draws are made in float64.

    Returns:
        ``nu_log``, ``theta_log`` and ``gamma_log``, each ``(d_state,)``.

    Raises:
        TypeError: a d_state that is no integer, radii that are no numbers.
        ValueError: ``d_state`` below 1; unless 0 ≤ r_min ≤ r_max < 1 and 0 < r_max; ``max_phase`` outside (0, 2π].

    >>> nu_log, theta_log, gamma_log = lru_init(1000, r_min=0.5, r_max=0.6)
    >>> lam = lru_eigenvalues(nu_log, theta_log)
    >>> bool((lam.abs() > 0.4999).all() and (lam.abs() < 0.6001).all())
    True
    """
    check_integer("d_state", d_state, 1)
    check_number("r_min", r_min)
    check_number("r_max", r_max)
    if not 0 <= r_min <= r_max < 1 or r_max == 0:
        raise ValueError(f"r_min, r_max: got {r_min}, {r_max}, expected 0 <= r_min <= r_max < 1 with r_max above 0")
    check_number("max_phase", max_phase, above=0, most=2 * math.pi)
    where = "cpu" if generator is None else generator.device
    uniform = lambda: 1 - torch.rand(d_state, generator=generator, device=where, dtype=torch.float64)  # never 0
    square = r_min**2 + (r_max**2 - r_min**2) * uniform()
    nu_log = (-square.log() / 2).log()
    theta_log = (max_phase * uniform()).log()
    gamma_log = torch.log1p(-square) / 2
    nu_log, theta_log, gamma_log = (x.to(device=device, dtype=dtype) for x in (nu_log, theta_log, gamma_log))
    return nu_log, theta_log, gamma_log


def lru_eigenvalues(nu_log: Float[Tensor, "*shape"], theta_log: Float[Tensor, "*shape"]) -> Complex[Tensor, "*shape"]:
    r"""Return the eigenvalues of two unconstrained parameters.

    .. math:: \lambda = \exp(-e^{\nu^{\log}} + i\,e^{\theta^{\log}}), \qquad |\lambda| \in (0, 1)

    In floating point :math:`|\lambda|` is 1 to rounding below :math:`\nu^{\log} \approx -17` in float32 and -37 in
    float64, and the rounded parts can lie outside of the circle by a unit in the last place.

    Args:
        nu_log: logarithm of the decay per step.
        theta_log: logarithm of the angle per step in radians.

    Returns:
        Complex numbers of the shape of both; of half types in complex64.

    Raises:
        TypeError: no floating dtype.

    >>> lru_eigenvalues(torch.tensor([math.log(math.log(2))]), torch.tensor([math.log(math.pi)])).real
    tensor([-0.5000])
    """
    check_dtype("nu_log", nu_log, "floating")
    check_dtype("theta_log", theta_log, "floating")
    check_shape("theta_log", theta_log, tuple(nu_log.shape), "as nu_log has")
    nu_log, theta_log = (_at_least_single(x) for x in (nu_log, theta_log))
    return torch.exp(torch.complex(-nu_log.exp(), theta_log.exp()))


def lru_gain(r: Float[Tensor, "*shape"], t: int | None = None) -> Float[Tensor, "*shape"]:
    r"""Return by how much a state exceeds white inputs in mean square, whatever the angle of the eigenvalue.

    .. math:: \frac{\mathbb E|x_t|^2}{\mathbb E|u|^2} = \sum_{k=0}^t r^{2k} = \frac{1-r^{2(t+1)}}{1-r^2}, \qquad
              x_t = \lambda x_{t-1} + u_t,\quad x_{-1} = 0,\quad |\lambda| = r

    Args:
        r: sizes of eigenvalues, at least 0; 1 and more are allowed.
        t: the step, from 0; the limit if None, which is infinite from r = 1 on.

    Raises:
        TypeError: no floating dtype, a t that is no integer.
        ValueError: a negative r or t.

    Cost: O(log t) products, in float64.

    >>> lru_gain(torch.tensor([0.0, 0.5, 1.0]), 2)
    tensor([1.0000, 1.3125, 3.0000])
    >>> lru_gain(torch.tensor([0.999])).sqrt()
    tensor([22.3664])
    """
    check_dtype("r", r, "floating")
    check_number("r", r, least=0)
    wide = r.double()
    if t is None:
        limit = 1 / ((1 - wide) * (1 + wide))
        return torch.where(wide < 1, limit, math.inf).to(r.dtype)
    check_integer("t", t, 0)
    # Sums of 2m terms from sums of m, all terms positive: no cancellation near r = 1, where the quotient is 0/0.
    square = wide**2
    total, power = torch.zeros_like(square), torch.ones_like(square)
    for bit in f"{t + 1:b}":
        total, power = total * (1 + power), power**2
        if bit == "1":
            total, power = total * square + 1, power * square
    return total.to(r.dtype)


def diagonalize_rnn(
    A: Float[Tensor, "n n"], B: Float[Tensor, "n m"], C: Float[Tensor, "p n"]
) -> tuple[Complex[Tensor, " n"], Complex[Tensor, "n m"], Complex[Tensor, "p n"]]:
    r"""Return the same linear RNN with a diagonal complex state.

    .. math:: A = P\Lambda P^{-1}: \quad x_t = Ax_{t-1} + Bv_t,\ y_t = Cx_t \quad\Longleftrightarrow\quad
              z_t = \Lambda z_{t-1} + P^{-1}Bv_t,\ y_t = CPz_t

    Args:
        A: transition of the state.
        B: of the inputs.
        C: of the outputs.

    Returns:
        The eigenvalues, :math:`P^{-1}B` and :math:`CP`. Rounding grows with the condition number of P, which is 1 for
        symmetric and orthogonal A and has no bound in general.

    Raises:
        TypeError: no floating dtype.
        ValueError: shapes that do not fit; columns of P, of unit length, with a condition number of
            :math:`1/(2\sqrt\varepsilon)` or more, 1400 in float32 and 3.4e7 in float64.

    At that bound half of the digits may be lost. A rounded matrix does not tell whether it has a Jordan block or is
    next to one: rounding splits a double eigenvalue by about :math:`\sqrt\varepsilon`, hence the bound. It refuses
    diagonalisable matrices of so bad a condition too, and accepts a block whose coupling is so weak that the condition
    stays below.

    Cost: O(n³).

    >>> lam, B, C = diagonalize_rnn(torch.tensor([[0.0, -0.5], [0.5, 0.0]]), torch.eye(2), torch.eye(2))
    >>> torch.allclose((C * lam**3 @ B).real, torch.tensor([[0.0, 0.125], [-0.125, 0.0]]))
    True
    """
    for name, x in (("A", A), ("B", B), ("C", C)):
        check_dtype(name, x, "floating")
    check_shape("A", A, (A.shape[-1] if A.dim() else "n", "n"))
    check_shape("B", B, (len(A), "m"), f"beside A {tuple(A.shape)}")
    check_shape("C", C, ("p", len(A)), f"beside A {tuple(A.shape)}")
    lam, P = torch.linalg.eig(A)
    bound = 0.5 / math.sqrt(torch.finfo(A.dtype).eps)
    condition = torch.linalg.cond(P)
    if not condition < bound:
        raise ValueError(
            f"A: got eigenvectors with condition number {condition:.1e}, expected a diagonalisable matrix with less "
            f"than {bound:.1e} in {A.dtype}"
        )
    return lam, torch.linalg.solve(P, B.to(P.dtype)), C.to(P.dtype) @ P


def _at_least_single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
