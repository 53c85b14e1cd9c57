"""What the decision about a claim consists of."""

from typing import Any, NamedTuple


class Decision(NamedTuple):
    """The evidence for a statement, how it was found, and the CPU seconds of the proof."""

    evidence: str
    method: str
    seconds: float


class InductionProof(NamedTuple):
    """What an induction proved, as it is displayed, and the CPU seconds it took."""

    base: Any
    hypothesis: Any
    step: Any
    seconds: float
