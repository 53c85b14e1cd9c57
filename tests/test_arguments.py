"""What is accepted and refused, in which words, and that the checks cost a tracer nothing."""

import math
import re

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import kexue_lib._arguments as arguments

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        ({}, (-5, 0, 10**30), ()),
        ({"least": 2}, (2, 3), (1, -2)),
        ({"least": 1, "most": 4}, (1, 4), (0, 5)),
        ({"least": 0, "even": True}, (0, 2), (1, -2)),
    ],
)
def test_integers_between_the_ends_are_accepted(options, inside, outside):
    for value in inside:
        arguments.check_integer("k", value, **options)
    for value in outside:
        with pytest.raises(ValueError, match=f"^k: got {value}, expected "):
            arguments.check_integer("k", value, **options)


@pytest.mark.parametrize("bad", [True, 2.0, "2", None, np.int64(2), torch.tensor(2)])
def test_other_things_are_no_integers(bad):
    with pytest.raises(TypeError, match=r"^k: got .*, expected an integer$"):
        arguments.check_integer("k", bad, 1)


INTERVALS = [
    ({}, "a number", lambda v: True),
    ({"below": math.inf}, "a finite number", lambda v: v < math.inf),
    ({"least": 0}, "a number of at least 0", lambda v: v >= 0),
    ({"above": 0}, "a number above 0", lambda v: v > 0),
    ({"most": 1}, "a number of at most 1", lambda v: v <= 1),
    ({"below": 1}, "a number below 1", lambda v: v < 1),
    ({"least": 0, "most": 1}, "a number in [0, 1]", lambda v: 0 <= v <= 1),
    ({"above": 0, "below": 1}, "a number in (0, 1)", lambda v: 0 < v < 1),
    ({"least": 0, "below": math.inf}, "a finite number of at least 0", lambda v: 0 <= v < math.inf),
    ({"above": 0, "below": math.inf}, "a finite number above 0", lambda v: 0 < v < math.inf),
]
POINTS = (-math.inf, -1.0, math.nextafter(0, -1), 0.0, 0.5, 1.0, math.nextafter(1, 2), 3.0, math.inf)


@pytest.mark.parametrize(("ends", "words", "belongs"), INTERVALS, ids=[words for _, words, _ in INTERVALS])
@pytest.mark.parametrize("made", [float, np.float64, lambda v: torch.tensor(v, dtype=torch.float64)])
def test_numbers_of_an_interval_are_accepted(ends, words, belongs, made):
    for value in POINTS:
        if belongs(value):
            arguments.check_number("t", made(value), **ends)
        else:
            with pytest.raises(ValueError, match=re.escape(f"t: got {value!r}, expected {words}") + "$"):
                arguments.check_number("t", made(value), **ends)
    with pytest.raises(ValueError, match=r"^t: got nan, expected a "):
        arguments.check_number("t", made(math.nan), **ends)


@pytest.mark.parametrize("bad", [True, "1", None, 1j, torch.tensor(True), torch.tensor(1j)])
def test_other_things_are_no_numbers(bad):
    with pytest.raises(TypeError, match=r"^t: got .*, expected (a number|real numbers)$"):
        arguments.check_number("t", bad)


def test_one_entry_outside_refuses_a_tensor_and_is_shown():
    arguments.check_number("t", torch.tensor([[1.0, 2.0]]), above=0)
    arguments.check_number("t", torch.zeros(0), above=0)
    with pytest.raises(ValueError, match=r"^t: got -2\.0, "):
        arguments.check_number("t", torch.tensor([[1.0, -2.0]], requires_grad=True), above=0)
    arguments.check_number("t", torch.tensor(-1.0, device="meta"), above=0)  # not read there


def test_what_was_got_differs_from_what_was_expected_to_the_last_digit():
    beyond = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(ValueError, match=r"got 1\.0000001192\d+, expected a number of at most 1$"):
        arguments.check_number("t", beyond, most=1)


def test_words():
    arguments.check_one_of("form", None, (None, "absorbed"))
    arguments.check_one_of("n", 2, (1, 2))
    with pytest.raises(ValueError, match=r"^kind: got 'd', expected 'a', 'b' or 'c'$"):
        arguments.check_one_of("kind", "d", ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"^kind: got 3, expected 'a'$"):
        arguments.check_one_of("kind", 3, ("a",))


KINDS = {
    "floating": (torch.float16, torch.bfloat16, torch.float32, torch.float64),
    "integer": (torch.uint8, torch.int32, torch.int64),
    "bool": (torch.bool,),
    "complex": (torch.complex64,),
}


@pytest.mark.parametrize("kind", ["floating", "integer", "bool"])
def test_dtypes_are_of_one_kind(kind):
    for own, dtypes in KINDS.items():
        for dtype in dtypes:
            x = torch.zeros(2, dtype=dtype)
            if own == kind:
                arguments.check_dtype("x", x, kind)
            else:
                with pytest.raises(TypeError, match=f"^x: got {dtype}, expected a tensor of {kind} dtype$"):
                    arguments.check_dtype("x", x, kind)
    with pytest.raises(TypeError, match=r"^x: got list, "):
        arguments.check_dtype("x", [1.0], kind)


@pytest.mark.parametrize(
    ("expected", "fits"),
    [
        ((2, 3), True),
        (torch.Size([2, 3]), True),
        (("n", 3), True),
        (("...", 3), True),
        (("...", 2, 3), True),
        (("...",), True),
        ((3, 2), False),
        ((2,), False),
        ((1, 2, 3), False),
        (("...", 2), False),
        (("...", 1, 2, 3), False),
        ((), False),
    ],
)
def test_shapes(expected, fits):
    for x in (X, X.numpy()):
        if fits:
            arguments.check_shape("x", x, expected)
        else:
            with pytest.raises(ValueError, match=r"^x: got shape \(2, 3\), expected \("):
                arguments.check_shape("x", x, expected)


@pytest.mark.parametrize("shape", [(), (3,), (1,), (2, 3), (1, 3), (2, 1), (2,), (1, 2, 3), (4, 3), (0,), (0, 3)])
@pytest.mark.parametrize("target", [(2, 3), (0, 3), (3,)])
def test_broadcasting_is_that_of_expand(shape, target):
    x = torch.zeros(shape)
    try:
        x.expand(target)
        fits = True
    except RuntimeError:
        fits = False
    if fits:
        arguments.check_broadcast("x", x, target, "(n, d)")
    else:
        with pytest.raises(ValueError, match=r"^x: got shape .*, expected one that broadcasts to \(n, d\) = "):
            arguments.check_broadcast("x", x, target, "(n, d)")


def test_dimensions():
    for dim in (-2, -1, 0, 1):
        arguments.check_dim(dim, X)
    for dim in (-3, 2):
        with pytest.raises(ValueError, match=f"^dim: got {dim}, expected a dimension of y, which has 2"):
            arguments.check_dim(dim, X, "y")
    with pytest.raises(TypeError, match=r"^dim: got 1\.0"):
        arguments.check_dim(1.0, X)


def checked(x, k, tau):
    arguments.check_integer("k", k, 1, x.shape[-1], most_is="n")
    arguments.check_number("tau", tau, above=0)
    arguments.check_one_of("kind", "a", ("a", "b"))
    arguments.check_dtype("x", x, "floating")
    arguments.check_shape("x", x, ("...", 3))
    arguments.check_broadcast("x", x, (2, 3), "(n, d)")
    arguments.check_dim(-1, x)
    return x * k / tau


@pytest.mark.parametrize("dynamic", [None, True])
def test_checks_do_not_break_a_graph(dynamic):
    compiled = torch.compile(checked, fullgraph=True, dynamic=dynamic, backend="eager")
    for k, tau in ((1, 2.0), (2, 0.5), (3, torch.tensor(4.0))):
        torch.testing.assert_close(compiled(X + 1, k, tau), (X + 1) * k / tau)


def test_values_are_not_read_under_vmap():
    batched = torch.vmap(lambda tau: checked(X + 1, 1, tau))(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(batched, torch.stack([X + 1, (X + 1) / 2]))


def test_a_size_of_a_symbolic_graph_is_an_integer():
    graph = make_fx(lambda x: checked(x, x.shape[0] - 1, 2.0), tracing_mode="symbolic")(X)
    torch.testing.assert_close(graph(X + 1), (X + 1) / 2)
