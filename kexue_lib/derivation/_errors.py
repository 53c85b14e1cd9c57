"""The errors that refuse a step."""

from typing import Any


class DerivationError(AssertionError):
    """A step that is false, undefined somewhere, or cannot be decided; the message says which.

    `title` names the step, `counterexample` maps its symbols to values (None where there is none).
    """

    __module__ = "kexue_lib.derivation"  # where readers import it from

    def __init__(self, title: str, message: str, counterexample: dict[Any, Any] | None = None) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.counterexample = counterexample


class VacuousClaim(DerivationError):
    """There is nothing to check: both sides are the same by construction, or nothing satisfies the conditions."""

    __module__ = "kexue_lib.derivation"


class Refusal(Exception):
    """Why a statement is refused. What decides knows statements only: the step's title joins at `named`."""

    def __init__(self, reason: str, counterexample: dict[Any, Any] | None = None, *, vacuous: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.counterexample, self.vacuous = reason, counterexample, vacuous

    def named(self, title: str) -> DerivationError:
        """The error of the step with a title."""
        return (VacuousClaim if self.vacuous else DerivationError)(title, self.reason, self.counterexample)
