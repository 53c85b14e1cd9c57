r"""Nonlinear recurrences :math:`x_t = f(x_{t-1}, u_t)`, solved for all times at once.

The states are the fixed point of an iteration whose every step is a linear recurrence, that is a scan:

.. math:: x^{(k)}_t - M_t x^{(k)}_{t-1} = f(x^{(k-1)}_{t-1}, u_t) - M_t x^{(k-1)}_{t-1}

:func:`parallel_rnn` runs it for any cell and five choices of M, and differentiates its result by one scan backwards.

Source: Su Jianlin, "Wild idea: even nonlinear RNNs can be computed in parallel?", 2023, https://kexue.fm/archives/9783;
Y. H. Lim, Q. Zhu, J. Selfridge, M. F. Kasim, "Parallelizing non-linear sequential models over the sequence length",
2023, arXiv 2309.12252.
"""

from __future__ import annotations

from kexue_lib.recurrence.parallel_rnn._cells import GRUCell, LSTMCell, TanhCell, cell_jacobian
from kexue_lib.recurrence.parallel_rnn._iteration import (
    ParallelRNNResult,
    lyapunov_exponents,
    parallel_rnn,
    sequential_rnn,
)
from kexue_lib.recurrence.parallel_rnn._linear import FixedIterationRNN, MinGRU

__all__ = [
    "FixedIterationRNN",
    "GRUCell",
    "LSTMCell",
    "MinGRU",
    "ParallelRNNResult",
    "TanhCell",
    "cell_jacobian",
    "lyapunov_exponents",
    "parallel_rnn",
    "sequential_rnn",
]
