"""How arguments are accepted and refused: ``name: got X, expected Y``, a TypeError or a ValueError.

An integer is Python's ``int`` (or a size that stands for one while a graph is traced). ``True`` is no integer and no
number; neither are NumPy's integers and tensors integers, which a caller converts with ``int(…)``: reading a tensor
waits for its device, and that is for the caller to decide. A number is an ``int``, a ``float`` (``numpy.float64`` is
one) or a tensor of real numbers. What was got is printed with all its digits, so that it differs from what was expected
wherever the two do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kexue_lib._tracing import is_traced

_INTEGERS = (int, torch.SymInt)
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)


def check_integer(
    name: str, value: Any, least: int | None = None, most: int | None = None, *, most_is: str = "", even: bool = False
) -> None:
    """Refuse what is no integer from ``least`` to ``most``, both included; with ``even`` an odd one too.

    Args:
        name: the argument's name, which starts the message.
        value: the argument.
        least: smallest integer accepted.
        most: largest integer accepted.
        most_is: what ``most`` is, for the message, such as "n".
        even: whether it must be even.

    Raises:
        TypeError: another type, bool among them.
        ValueError: an integer outside, or an odd one.

    >>> check_integer("k", 5, 1, 4, most_is="n")
    Traceback (most recent call last):
    ValueError: k: got 5, expected at most n = 4
    >>> check_integer("k", True)
    Traceback (most recent call last):
    TypeError: k: got True, expected an integer
    """
    if isinstance(value, bool) or not isinstance(value, _INTEGERS):
        raise TypeError(f"{name}: got {_shown(value)}, expected an integer")
    if least is not None and value < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")
    if most is not None and value > most:
        raise ValueError(f"{name}: got {value}, expected at most {f'{most_is} = ' if most_is else ''}{most}")
    if even and value % 2:
        raise ValueError(f"{name}: got {value}, expected an even integer")


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse what is no real number in an interval; ``below=math.inf`` means finite, and NaN is in no interval.

    A tensor must lie in it with all its entries. They are read where that costs little: on the CPU, and not while
    a graph is traced; elsewhere they are taken on trust.

    Args:
        name: the argument's name, which starts the message.
        value: the argument.
        least: closed lower end; ``above`` is an open one.
        above: open lower end.
        most: closed upper end; ``below`` is an open one.
        below: open upper end.

    Raises:
        TypeError: another type, or a tensor that is bool or complex.
        ValueError: a number outside.

    Cost: for a tensor on the CPU, a pass over its entries for each end.

    >>> check_number("top_p", 1.0000000001, above=0, most=1)
    Traceback (most recent call last):
    ValueError: top_p: got 1.0000000001, expected a number in (0, 1]
    >>> check_number("tau", torch.tensor(-1.0), above=0, below=math.inf)
    Traceback (most recent call last):
    ValueError: tau: got -1.0, expected a finite number above 0
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name}: got {value.dtype}, expected real numbers")
        if value.device.type != "cpu" or is_traced():
            return
        inside = _inside(value.detach(), least, above, most, below)
        if bool(inside.all()):
            return
        value = value.detach()[~inside][0].item()
    elif isinstance(value, bool) or not isinstance(value, _NUMBERS):
        raise TypeError(f"{name}: got {_shown(value)}, expected a number")
    elif _inside(value, least, above, most, below):
        return
    raise ValueError(f"{name}: got {_shown(value)}, expected {_interval(least, above, most, below)}")


def check_one_of(name: str, value: Any, words: Collection[Any]) -> None:
    """Refuse what is not among the words.

    Raises:
        ValueError: another word.

    >>> check_one_of("reduction", "total", ("mean", "sum", "none"))
    Traceback (most recent call last):
    ValueError: reduction: got 'total', expected 'mean', 'sum' or 'none'
    """
    if value not in words:
        *others, last = map(repr, words)
        raise ValueError(f"{name}: got {value!r}, expected {', '.join(others)}{' or ' if others else ''}{last}")


def check_dtype(
    name: str, x: Any, kind: Literal["floating", "integer", "bool", "complex", "floating or complex", "real"]
) -> None:
    """Refuse what is no tensor of a kind of dtype; complex numbers are not floating, bool is not integer.

    "real" is floating or integer.

    Raises:
        TypeError: no tensor, or another dtype.

    >>> check_dtype("x", torch.arange(3), "floating")
    Traceback (most recent call last):
    TypeError: x: got torch.int64, expected a tensor of floating dtype
    """
    if isinstance(x, Tensor):
        if x.is_floating_point():
            own = ("floating", "floating or complex", "real")
        elif x.is_complex():
            own = ("complex", "floating or complex")
        else:
            own = ("bool",) if x.dtype == torch.bool else ("integer", "real")
        if kind in own:
            return
    raise TypeError(f"{name}: got {getattr(x, 'dtype', type(x).__name__)}, expected a tensor of {kind} dtype")


def check_shape(name: str, x: Any, expected: Sequence[int | str], reason: str = "") -> None:
    """Refuse a tensor or an array of another shape.

    Args:
        name: the argument's name, which starts the message.
        x: what has a ``shape``.
        expected: its sizes; a letter stands for any size, and "..." at the start for any further dimensions.
        reason: where these sizes come from, behind the message.

    Raises:
        ValueError: another shape.

    >>> check_shape("weight", torch.ones(3, 4), ("n", 5), "as hidden has")
    Traceback (most recent call last):
    ValueError: weight: got shape (3, 4), expected (n, 5) as hidden has
    """
    shape = x.shape
    wanted = expected[1:] if len(expected) and expected[0] == "..." else expected
    more = len(shape) - len(wanted)
    fits = more == 0 or (more > 0 and len(wanted) < len(expected))
    if not fits or any(not isinstance(w, str) and w != s for w, s in zip(wanted, shape[max(more, 0) :])):
        words = f"({', '.join(map(str, expected))}{',' if len(expected) == 1 else ''})"
        raise ValueError(f"{name}: got shape {tuple(shape)}, expected {words}{f' {reason}' if reason else ''}")


def check_broadcast(name: str, x: Tensor, shape: Sequence[int], what: str) -> None:
    """Refuse a tensor that does not broadcast to a shape.

    Args:
        name: the argument's name, which starts the message.
        x: the argument.
        shape: what it must broadcast to.
        what: that shape in words or letters, for the message.

    Raises:
        ValueError: it would broadcast to another shape, or not at all.

    >>> check_broadcast("scale", torch.ones(3), (5, 4), "(..., L)")
    Traceback (most recent call last):
    ValueError: scale: got shape (3,), expected one that broadcasts to (..., L) = (5, 4)
    """
    if x.dim() > len(shape) or any(a not in (1, s) for a, s in zip(x.shape[::-1], shape[::-1])):
        expected = f"one that broadcasts to {what} = {tuple(shape)}"
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected {expected}")


def check_dim(dim: Any, x: Tensor, name: str = "x") -> None:
    """Refuse a ``dim`` that ``x`` does not have.

    Raises:
        TypeError: no integer.
        ValueError: out of range.

    >>> check_dim(2, torch.ones(3, 4))
    Traceback (most recent call last):
    ValueError: dim: got 2, expected a dimension of x, which has 2
    """
    check_integer("dim", dim)
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim: got {dim}, expected a dimension of {name}, which has {x.dim()}")


def _inside(value: Any, least: float | None, above: float | None, most: float | None, below: float | None) -> Any:
    """Whether the value is no NaN and lies between the ends: True or False, for a tensor one for each entry."""
    inside = value == value  # NaN is not
    if least is not None:
        inside = inside & (value >= least)
    if above is not None:
        inside = inside & (value > above)
    if most is not None:
        inside = inside & (value <= most)
    if below is not None:
        inside = inside & (value < below)
    return inside


def _interval(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """The interval in words."""
    finite = "finite " if below == math.inf else ""
    low = least if above is None else above
    high = most if below is None or finite else below
    if low is None and high is None:
        return f"a {finite}number"
    if high is None:
        return f"a {finite}number {'above' if least is None else 'of at least'} {low}"
    if low is None:
        return f"a number {'below' if most is None else 'of at most'} {high}"
    return f"a number in {'(' if least is None else '['}{low}, {high}{')' if most is None else ']'}"


def _shown(value: Any) -> str:
    """A number or a word as it is, of other things the type."""
    if isinstance(value, float):
        return repr(float(value))  # without the wrapping of numpy.float64
    return repr(value) if isinstance(value, (bool, int, str, type(None))) else type(value).__name__
