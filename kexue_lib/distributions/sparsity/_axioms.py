"""The six axioms of Hurley and Rickard as a search for counterexamples.

Random vectors of moderate size, and one with a single nonzero entry, test that strict inequalities are strict;
adversarial ones (one entry far above two small ones, many tiny entries, repeated values, zeros, twelve decades of
magnitudes) test their direction only, because there a true but small change may be lost in rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kexue_lib._arguments import check_integer

Rows = Float[Tensor, "_ _"]


@dataclass(frozen=True)
class AxiomReport:
    """What the search for one axiom found.

    `holds` is False if there is a counterexample: the vectors before and after the operation, float64 (n,) and (m,).
    True means that none was found, which proves nothing.
    """

    holds: bool
    counterexample: tuple[Float[Tensor, " _"], Float[Tensor, " _"]] | None = None


def check_axioms(
    measure: Callable[[Tensor], Tensor],
    larger_is_sparser: bool = False,
    trials: int = 2000,
    n: int = 6,
    generator: torch.Generator | None = None,
    tol: float = 1e-9,
) -> dict[str, AxiomReport]:
    """Try to refute each of the six axioms of a sparsity measure S (smaller = sparser).

    D1 (Robin Hood): taking α < (xᵢ − xⱼ)/2 from xᵢ and giving it to xⱼ increases S. D2 (scaling): S(αx) = S(x).
    D3 (rising tide): S(x + α) > S(x). D4 (cloning): S(x ∘ x) = S(x). P1 (Bill Gates): from some size of xᵢ on, raising
    it further decreases S. P2 (babies): S(x ∘ [0]) < S(x).

    P1 claims that such a size exists: it counts as refuted at (x, i) if S fails to decrease from xᵢ = c · max of the
    others for each of c = 1, 10, 1000; the last pair is the counterexample. D3 and P2 are asked of non-constant x.

    Args:
        measure: maps rows of nonnegative float64 numbers (m, n) to (m,), for any n.
        larger_is_sparser: the measure has the opposite orientation.
        trials: random vectors for each axiom, ≥ 1; a part of the adversarial ones is longer.
        n: entries of a vector, ≥ 3; the vectors with many tiny entries have 20n and 1000n.
        generator: source of randomness, on the CPU; a fixed seed if None.
        tol: changes up to tol times the typical size of S count as none. A true but smaller change is reported as a
            counterexample to a strict wish: `norm_ratio` with p = 8 "fails" D1, with q = 1/20 P1 and P2.

    Returns:
        {"D1": AxiomReport, "D2": …, "D3": …, "D4": …, "P1": …, "P2": …}; of several counterexamples the first one, and
        candidates with small integer entries come first.

    Raises:
        TypeError: ``trials`` or ``n`` is no integer.
        ValueError: trials < 1 or n < 3; measure returns another shape or NaN.

    Cost: some dozen calls of the measure on `trials` rows.
    Source: article 9595, the six properties; arXiv 0811.4706, section II.

    >>> reports = check_axioms(lambda x: x.mean(-1) / x.amax(-1))
    >>> [name for name, report in reports.items() if not report.holds]
    ['D1']
    """
    check_integer("trials", trials, 1)
    check_integer("n", n, 3)
    generator = generator or torch.Generator().manual_seed(0)
    sign = -1.0 if larger_is_sparser else 1.0
    search = _Search(lambda x: sign * _measured(measure, x), tol)
    candidates = [(x, search.measure(x), strict) for x, strict in _candidates(trials, n, generator)]
    return {name: axiom(search, candidates, generator) for name, axiom in _AXIOMS.items()}


# -- candidates: (rows, whether strict inequalities must be visible) ---------------------------------------------------


def _candidates(trials: int, n: int, generator: torch.Generator) -> Iterator[tuple[Rows, bool]]:
    third = -(-trials // 3)
    draw = lambda *shape: torch.rand(*shape, dtype=torch.float64, generator=generator)
    pick = lambda values, *shape: values[torch.randint(len(values), shape, generator=generator)]
    integers = torch.randint(0, 10, (third, n), generator=generator).double()
    small = torch.tensor([[10.0, 2.0, 1.0], [1.0, 0.0, 0.0]]).double()  # the second one is as sparse as can be
    small = torch.nn.functional.pad(small, (0, n - 3))
    yield _usable(torch.cat((small, integers)), True)

    spread = torch.exp(draw(third, 1) * 3 * torch.randn(third, n, dtype=torch.float64, generator=generator))
    decades = 10 ** (12 * draw(third, n) - 6)
    repeated = pick(torch.tensor([0.0, 1e-6, 1e-3, 1.0, 2.0, 1e3], dtype=torch.float64), third, n)
    giant = torch.cat((10 ** (6 * draw(third, 1)), 1 + draw(third, 2), 1e-3 * draw(third, n - 3)), dim=1)
    zeros = spread * (draw(third, n) < 0.5)
    kinds = torch.stack((spread, decades, repeated, giant, zeros))  # (kind, third, n)
    yield _usable(kinds[torch.arange(third) % len(kinds), torch.arange(third)], False)

    for many, rows in ((20 * n, -(-third // 4)), (1000 * n, 6)):
        tiny = (10 ** (-6 * draw(rows, 1))).expand(rows, many).clone()
        tiny[:, 0], tiny[:, 1] = 3.0, 3 * (0.2 + 0.8 * draw(rows))
        yield _usable(tiny, False)


def _usable(rows: Rows, strict: bool) -> tuple[Rows, bool]:
    """Rows with at least two different entries, not all of them tiny."""
    rows = rows.double()
    return rows[(rows.amax(1) > rows.amin(1)) & (rows.amax(1) > 1e-6)], strict


# -- comparisons -------------------------------------------------------------------------------------------------------


def _measured(measure: Callable[[Tensor], Tensor], x: Rows) -> Float[Tensor, " _"]:
    values = measure(x)
    if not isinstance(values, Tensor) or values.shape != x.shape[:1]:
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"measure: got {got} from {tuple(x.shape)}, expected shape {tuple(x.shape[:1])}")
    if values.isnan().any():
        raise ValueError(f"measure: got NaN at {x[values.isnan()][0].tolist()}, expected numbers")
    return values.double()


class _Search:
    """Looks for rows at which a measure does not change as an axiom says."""

    def __init__(self, measure: Callable[[Rows], Float[Tensor, " _"]], tol: float):
        self.measure, self.tol = measure, tol

    def refuted(self, a: Float[Tensor, " _"], after: Rows, change: int, strict: bool = True) -> Bool[Tensor, " _"]:
        """Where the measure, a before, does not change with that sign (0: stay equal).

        Not strict: where it changes against it.
        """
        b = self.measure(after)
        noise = self.tol * torch.maximum(torch.maximum(a.abs(), b.abs()), a.abs().median())
        if change == 0:
            return (b - a).abs() > noise
        return change * (b - a) <= (noise if strict else -noise)

    @staticmethod
    def report(found: list[tuple[Bool[Tensor, " _"], Rows, Rows]]) -> AxiomReport:
        for bad, before, after in found:
            if bad.any():
                first = int(bad.nonzero()[0, 0])
                return AxiomReport(False, (before[first].clone(), after[first].clone()))
        return AxiomReport(True)


_Candidates = list[tuple[Rows, Float[Tensor, " _"], bool]]


def _robin_hood(search: _Search, candidates: _Candidates, generator: torch.Generator) -> AxiomReport:
    found = []
    for x, s, strict in candidates:
        order = x.argsort(dim=1, descending=True, stable=True)
        pairs = [(0, 1), (1, 2), (x.shape[1] - 2, x.shape[1] - 1), None]  # by rank, then at random
        for pair in pairs:
            for share in (0.8, 0.1) if strict else (0.99, 0.5, 1e-3):
                if pair is None:
                    ranks = torch.rand(x.shape, generator=generator).argsort(1)[:, :2].sort(1).values
                else:
                    ranks = torch.tensor([pair]).expand(len(x), 2)
                i, j = order.gather(1, ranks).unbind(1)
                rows = torch.arange(len(x))
                gap = x[rows, i] - x[rows, j]
                after = x.clone()
                after[rows, i] -= share * gap / 2
                after[rows, j] += share * gap / 2
                found.append((search.refuted(s, after, 1, strict) & (gap > 0), x, after))
    return search.report(found)


def _scaling(search: _Search, candidates: _Candidates, generator: torch.Generator) -> AxiomReport:
    factors = (2.0, 0.3, 1e6, 1e-6)
    return search.report([(search.refuted(s, f * x, 0), x, f * x) for x, s, _ in candidates for f in factors])


def _rising_tide(search: _Search, candidates: _Candidates, generator: torch.Generator) -> AxiomReport:
    found = []
    for x, s, strict in candidates:
        for share in (1.0, 0.1) if strict else (1e-3, 1.0, 1e3):
            after = x + share * x.mean(1, keepdim=True)
            found.append((search.refuted(s, after, 1, strict), x, after))
    return search.report(found)


def _cloning(search: _Search, candidates: _Candidates, generator: torch.Generator) -> AxiomReport:
    clones = [(x, s, x.repeat(1, 2)) for x, s, _ in candidates]
    return search.report([(search.refuted(s, y, 0), x, y) for x, s, y in clones])


def _bill_gates(search: _Search, candidates: _Candidates, generator: torch.Generator) -> AxiomReport:
    found = []
    for x, _, strict in candidates:
        i = torch.randint(x.shape[1], (len(x), 1), generator=generator)
        largest = x.scatter(1, i, 0.0).amax(1, keepdim=True)
        usable = largest[:, 0] > 0  # growth needs another nonzero entry to grow against
        x, i, largest = x[usable], i[usable], largest[usable]
        factors = (1.0, 10.0, 1000.0)
        starts = [x.scatter(1, i, factor * largest) for factor in factors]
        values = [search.measure(start) for start in starts]
        for growth in (2.0, 1.1) if strict else (1.01, 10.0):
            bad, pair = torch.ones(len(x), dtype=torch.bool), (x, x)
            for factor, start, value in zip(factors, starts, values):
                pair = start, x.scatter(1, i, growth * factor * largest)
                bad &= search.refuted(value, pair[1], -1, strict)
            found.append((bad, *pair))
    return search.report(found)


def _babies(search: _Search, candidates: _Candidates, generator: torch.Generator) -> AxiomReport:
    grown = [(x, s, torch.cat((x, x.new_zeros(len(x), 1)), dim=1), strict) for x, s, strict in candidates]
    return search.report([(search.refuted(s, y, -1, strict), x, y) for x, s, y, strict in grown])


_AXIOMS: dict[str, Callable[[_Search, _Candidates, torch.Generator], AxiomReport]] = {
    "D1": _robin_hood,
    "D2": _scaling,
    "D3": _rising_tide,
    "D4": _cloning,
    "P1": _bill_gates,
    "P2": _babies,
}
