r"""The smallest a + b + c with N = ab + c in natural numbers, 0 among them.

With p = a + b and q = b - a, :math:`4c=4N-p^2+q^2`, so that each p has one best q and p is all there is to search:
from :math:`2\sqrt N` upwards, to within :math:`O(N^{1/4})` in the worst case and :math:`O(N^{1/6})` on average. For all
N at once, :math:`\min(a+b+c)=N-\max_{ab\le N}(ab-a-b)` is a running maximum over a sieve.

Source: Su Jianlin, "The minimum of a + b + c for N = ab + c in the natural numbers", 2023,
https://kexue.fm/archives/9775.
"""

from kexue_lib.interludes.abc_decomposition._bounds import expected_excess, lower_bound, upper_bound
from kexue_lib.interludes.abc_decomposition._search import (
    Decomposition,
    SearchTrace,
    abc_min,
    abc_min_sqrt,
    abc_min_window,
    brute_force,
    search_trace,
)
from kexue_lib.interludes.abc_decomposition._tensors import abc_min_range, abc_min_tensor, isqrt_int64

__all__ = [
    "Decomposition",
    "SearchTrace",
    "abc_min",
    "abc_min_range",
    "abc_min_sqrt",
    "abc_min_tensor",
    "abc_min_window",
    "brute_force",
    "expected_excess",
    "isqrt_int64",
    "lower_bound",
    "search_trace",
    "upper_bound",
]
