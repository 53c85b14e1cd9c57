"""Numbers that a run produced, compared with what theory predicts."""

import math
import re
from fractions import Fraction
from typing import Any

import sympy as sp

from kexue_lib.derivation import _display as show
from kexue_lib.derivation._errors import DerivationError, VacuousClaim


def compare(title: str, observed: Any, expected: Any, rtol: Any, atol: Any) -> list[Any]:
    """The expected numbers, if the observed ones agree with them within the tolerances.

    Raises:
        TypeError, ValueError: naming the argument: no numbers, or shapes that differ.
        DerivationError: outside of the tolerance, NaN or infinite.
    """
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
            raise TypeError(f"{name}: got {tolerance!r}, expected a number")
        if not (0 <= tolerance < math.inf):
            raise ValueError(f"{name}: got {tolerance!r}, expected a finite number, not negative")
    if observed is expected and not isinstance(expected, (int, float)):
        raise VacuousClaim(title, "observed and expected are the same object")
    seen, wanted = _nested("observed", observed), _nested("expected", expected)
    shape, other = _shape("observed", seen), _shape("expected", wanted)
    if other and shape != other:
        raise ValueError(f"observed: got shape {shape}, expected {other}, the shape of `expected`")
    values, targets = _flat(seen), _flat(wanted)
    if not values:
        raise VacuousClaim(title, "observed is empty")
    targets = targets * len(values) if not other else targets
    for index, (value, target) in enumerate(zip(values, targets)):
        _compare_one(title, value, target, index, rtol, atol)
    return targets


def _compare_one(title: str, value: Any, target: Any, index: int, rtol: Any, atol: Any) -> None:
    if not (_is_finite(value) and _is_finite(target)):
        raise DerivationError(title, f"observed {value}, expected {target} (entry {index})")
    both_real = not (isinstance(value, complex) or isinstance(target, complex))
    gap = abs(Fraction(value) - Fraction(target)) if both_real else abs(value - target)
    if gap > Fraction(atol) + Fraction(rtol) * Fraction(abs(target)):
        off = f"off by {float(gap):.3g}" if gap < 10**300 else "off by more than 1e300"
        raise DerivationError(
            title, f"observed {value}, expected {target} (entry {index}): {off}, rtol={rtol}, atol={atol}"
        )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int) or math.isfinite(abs(value))


def _nested(name: str, value: Any) -> Any:
    """A number, tensor, array or nested list as a Python number or nested lists of them; integers stay exact."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if isinstance(value, sp.MatrixBase):
        value = value.tolist()
    if hasattr(value, "tolist") and not isinstance(value, sp.Basic):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_nested(name, entry) for entry in value]
    if isinstance(value, (bool, str)) or value is None:
        raise TypeError(f"{name}: got {value!r}, expected a number")
    if isinstance(value, (int, sp.Integer)):
        return int(value)
    try:
        number = complex(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: got {value!r}, expected a number") from error
    return number.real if number.imag == 0 else number


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    inner = {_shape(name, entry) for entry in value}
    if len(inner) > 1:
        raise ValueError(f"{name}: got rows of different lengths, expected an array")
    return (len(value), *next(iter(inner), ()))


def _flat(value: Any) -> list[Any]:
    return [number for entry in value for number in _flat(entry)] if isinstance(value, list) else [value]


def rows(expected: Any, wanted: list[Any], rtol: Any, atol: Any) -> tuple[str, str]:
    """The interval that the run hit, as LaTeX and in words: unlike the run's digits it is the same on every machine."""
    if atol and not any(wanted):
        return rf"|\text{{observed}}| \le {_scientific(f'{atol:.6g}')}", f"|observed| <= {atol:.6g}"
    bounds = [(f"{100 * rtol:.6g}", r"\,\%", " %")] * (rtol > 0) + [(f"{atol:.6g}", "", "")] * (atol > 0)
    distance = " + ".join(f"{_scientific(bound)}{unit}" for bound, unit, _ in bounds)
    words = " + ".join(f"{bound}{unit}" for bound, _, unit in bounds)
    if isinstance(expected, sp.Expr) and not expected.is_Number:
        target, name = show.latex(expected), str(expected)
    elif len(wanted) > 6:
        target, name = r"\text{the expected}", "the expected"
    else:
        values = [sp.Float(value, 6).__format__(".6g") if _is_long(value) else f"{value:.6g}" for value in wanted]
        target, name = r",\ ".join(_scientific(value) for value in values), ", ".join(values)
    what = f"{len(wanted)} values observed" if len(wanted) > 6 else "observed"
    if not bounds:
        return rf"\text{{{what} exactly: }} {target}", f"{what} exactly: {name}"
    return rf"\text{{{what} within }} {distance} \text{{ of }} {target}", f"{what} within {words} of {name}"


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= 10**300  # beyond what a float can hold


def _scientific(value: str) -> str:
    power = lambda m: f"10^{{{m[1].strip('+')}{m[2]}}}"
    value = re.sub(r"(?<![\d.])1e([+-])0*(\d+)", power, value)
    return re.sub(r"e([+-])0*(\d+)", lambda m: rf" \cdot {power(m)}", value)
