r"""Linear recurrences along one axis, :math:`x_t = a_t x_{t-1} + b_t`, as parallel scans.

The pairs (a, b) form a monoid, so that a sequence can be cut into pieces, each piece summed up by one pair, and the
pieces joined: :func:`scan_combine`. :func:`linear_scan` has numbers a, :func:`matrix_scan` square matrices.

Source: G. Blelloch, "Prefix Sums and Their Applications", CMU-CS-90-190, 1990; E. Martin, C. Cundy, "Parallelizing
Linear Recurrent Neural Nets Over Sequence Length", 2018, arXiv 1709.04057.
"""

from __future__ import annotations

from kexue_lib.recurrence.scan._scans import linear_scan, matrix_scan, scan_combine

__all__ = ["linear_scan", "matrix_scan", "scan_combine"]
