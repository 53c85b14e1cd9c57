"""Derivations whose every step is checked by machine: proved by SymPy, checked with bounded errors, or measured."""

from typing import TYPE_CHECKING, Any

from kexue_lib.derivation._claim import Claim as Claim
from kexue_lib.derivation._derivation import Derivation as Derivation
from kexue_lib.derivation._errors import DerivationError as DerivationError
from kexue_lib.derivation._errors import VacuousClaim as VacuousClaim
from kexue_lib.derivation._indexed_facts import ForEvery as ForEvery
from kexue_lib.derivation._recurrences import Recurrence as Recurrence

if TYPE_CHECKING:
    from kexue_lib.derivation._matrices import MatrixSum as MatrixSum

__all__ = ["Claim", "Derivation", "DerivationError", "ForEvery", "MatrixSum", "Recurrence", "VacuousClaim"]


def __getattr__(name: str) -> Any:
    """Import `MatrixSum` on first use: it brings the algebra of matrices with it."""
    if name == "MatrixSum":
        from kexue_lib.derivation._matrices import MatrixSum

        return MatrixSum
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what is imported on first use too."""
    return sorted({*globals(), *__all__})
