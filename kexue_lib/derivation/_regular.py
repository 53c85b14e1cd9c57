"""Where special functions are analytic: the distance from an argument to the nearest singular point or branch cut.

A value at the middle of a ball and a few beside it bound the function on the ball only where the function moves
almost linearly, far from its singularities; a disc on which it is bounded proves it analytic only where the disc meets
none of them. Along the real line a branch cut is no obstacle, a branch point is.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath


class Regular(NamedTuple):
    """What disturbs a function in one of its arguments."""

    points: tuple[Any, ...] = ()
    poles: bool = False  # at 0, -1, -2, ...
    cut: tuple[Any, Any] | None = None  # an interval of the real line
    scale: Callable[[Any], Any] = lambda z: 1  # over what distance it moves, far from what disturbs it

    def room(self, z: Any, real: bool) -> Any:
        """The distance over which the function is analytic and moves moderately around z."""
        room = mpmath.mpf(self.scale(z))
        for point in self.points:
            room = min(room, abs(z - point))
        if self.poles:
            room = min(room, abs(z - min(0, mpmath.nint(mpmath.re(z)))))
        if self.cut is not None and not real:
            low, high = self.cut
            room = min(room, abs(z - min(max(mpmath.re(z), low), high)))
        return room


_FAR = lambda z: 1 + abs(z)
_FAST = lambda z: 1 / (1 + abs(z))
_NEGATIVE = (-mpmath.inf, 0)
_AT_ZERO = Regular((0,), cut=_NEGATIVE)
_ENTIRE = Regular()


def _bessel(balls: Sequence[Any]) -> tuple[Regular, Regular]:
    whole = balls[0].a is not None and type(balls[0].a) is int and not balls[0].b
    return _ENTIRE, _ENTIRE if whole else _AT_ZERO


def _lambert(balls: Sequence[Any]) -> tuple[Regular, ...]:
    end = -mpmath.exp(-1)
    principal = len(balls) == 1 or (balls[1].a == 0 and not balls[1].b)
    if principal:
        return (Regular((end,), cut=(-mpmath.inf, end), scale=_FAR),)
    return Regular((end, 0), cut=_NEGATIVE, scale=_FAR), _ENTIRE


# By the name in mpmath, one entry for each argument.
REGULAR: dict[str, Any] = {
    "gamma": (Regular(poles=True),),
    "loggamma": (Regular(poles=True, cut=_NEGATIVE, scale=_FAR),),
    "digamma": (Regular(poles=True, scale=_FAR),),
    "polygamma": (_ENTIRE, Regular(poles=True, scale=_FAR)),
    "lower gamma": (Regular(poles=True), _AT_ZERO),
    "gammainc": (_ENTIRE, _AT_ZERO),
    "zeta": (Regular((1,)), Regular(poles=True, cut=_NEGATIVE)),
    "altzeta": (_ENTIRE,),
    "polylog": (_ENTIRE, Regular((1,), cut=(1, mpmath.inf), scale=_FAR)),
    "lambertw": _lambert,
    "besselj": _bessel,
    "besseli": _bessel,
    "bessely": (_ENTIRE, _AT_ZERO),
    "besselk": (_ENTIRE, _AT_ZERO),
    "airyai": (Regular(scale=_FAST),),
    "airybi": (Regular(scale=_FAST),),
    "fresnels": (Regular(scale=_FAST),),
    "fresnelc": (Regular(scale=_FAST),),
    "ei": (_AT_ZERO,),
    "ci": (_AT_ZERO,),
    "chi": (_AT_ZERO,),
    "expint": (_ENTIRE, _AT_ZERO),
    "si": (_ENTIRE,),
    "shi": (_ENTIRE,),
    "li": (Regular((0, 1), cut=(-mpmath.inf, 1), scale=_FAR),),
    "ellipk": (Regular((1,), cut=(1, mpmath.inf), scale=_FAR),),
}


def room(name: str, balls: Sequence[Any], place: int, middle: Any) -> Any:
    """How far one argument may move from its middle; None where nothing is known of the function."""
    known = REGULAR.get(name)
    if callable(known):
        known = known(balls)
    return None if known is None else known[place].room(middle, real=not balls[place].flags)
