"""What SymPy raises where it cannot go on, told apart from bugs and from packages that are missing."""

from collections.abc import Callable
from typing import Any

from sympy.polys.polyerrors import BasePolynomialError

Cannot = NotImplementedError  # what SymPy raises where it has no method

_SAYS_SO = (Cannot, BasePolynomialError, RecursionError)
_MAY_SAY_SO = (ValueError, TypeError, AttributeError, ZeroDivisionError, IndexError, KeyError, OverflowError)


class NoRule(Cannot):
    """No rule of ours fits an expression; caught wherever SymPy's own refusal is."""


def attempted(attempt: Callable[[], Any], otherwise: Any = False) -> Any:
    """What the attempt returns; `otherwise` where SymPy cannot finish it.

    Errors that Python code of any kind may raise count as SymPy's "cannot" only if SymPy or mpmath raised them:
    a bug in what calls them comes through.
    """
    try:
        return attempt()
    except _SAYS_SO:
        return otherwise
    except _MAY_SAY_SO as error:
        trace = error.__traceback__
        assert trace is not None  # it has been raised
        while trace.tb_next is not None:
            trace = trace.tb_next
        if trace.tb_frame.f_globals.get("__name__", "").split(".")[0] not in ("sympy", "mpmath"):
            raise
        return otherwise
