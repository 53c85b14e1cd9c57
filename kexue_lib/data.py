"""Data that every reader has: scikit-learn's digits and Python's own source as bytes. Nothing downloads."""

from __future__ import annotations

import importlib.util
import re
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from kexue_lib._arguments import check_integer, check_number, check_one_of
from kexue_lib._extras import needs_notebook_extra

__all__ = [
    "Corpus",
    "Digits",
    "Minibatches",
    "byte_windows",
    "digits",
    "flip_labels",
    "minibatches",
    "ngram_entropy",
    "python_source",
    "python_topics",
    "word_tokens",
]

_DIGITS = 1797  # images that scikit-learn ships
_SPLIT_SEED = 20240919  # of the split that every chapter shares


class Digits(NamedTuple):
    """The 8×8 handwritten digits, split for training and testing.

    ``x_train (n, 64)`` and ``x_test (m, 64)`` are pixels row by row; ``y_train (n,)`` and ``y_test (m,)`` are the
    digits 0…9 as int64. Source: E. Alpaydin and C. Kaynak, UCI repository, 1998, as bundled with scikit-learn.

    >>> digits().x_train.shape
    torch.Size([1400, 64])
    """

    x_train: Float[Tensor, "n 64"]
    y_train: Int64[Tensor, " n"]
    x_test: Float[Tensor, "m 64"]
    y_test: Int64[Tensor, " m"]


class Corpus(NamedTuple):
    """A text as bytes, its last 5 % kept for validation.

    ``train (n,)`` and ``validation (m,)`` are uint8.

    >>> corpus = python_topics()
    >>> corpus.train.dtype, len(corpus.validation) < len(corpus.train) / 18
    (torch.uint8, True)
    """

    train: UInt8[Tensor, " n"]
    validation: UInt8[Tensor, " m"]


def digits(
    *,
    test_size: int = 397,
    scale: Literal["unit", "symmetric", "standard"] = "unit",
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Digits:
    r"""Return scikit-learn's 1797 handwritten digits in a fixed random split.

    .. math:: \text{unit: } v/16 \in [0,1], \qquad \text{symmetric: } v/8-1 \in [-1,1], \qquad
              \text{standard: } (v-\mu_j)/\max(\sigma_j, 1)

    where v is the stored pixel (0…16) and :math:`\mu_j, \sigma_j` are the mean and the standard deviation of pixel j
    over the training part, in units of v; a pixel that hardly varies is only centred.

    Args:
        test_size: images kept for testing, 0…1796.
        scale: range of the pixels, see above.
        generator: source of the split; default: the book's own seed, the same split for every chapter.
        dtype: of the pixels.

    Returns:
        ``Digits(x_train, y_train, x_test, y_test)``.

    Raises:
        TypeError: ``test_size`` is no integer.
        ValueError: ``test_size`` outside 0…1796, or an unknown ``scale``.

    >>> data = digits(scale="symmetric")
    >>> data.x_train.min().item(), data.x_train.max().item(), len(data.y_test)
    (-1.0, 1.0, 397)
    """
    check_integer("test_size", test_size, 0, _DIGITS - 1)
    check_one_of("scale", scale, ("unit", "symmetric", "standard"))
    with needs_notebook_extra("kexue_lib.data.digits"):
        from sklearn.datasets import load_digits

    bundle: Any = load_digits()  # a tuple, says scikit-learn's signature, which it is with return_X_y only
    x, y = torch.from_numpy(bundle.data), torch.from_numpy(bundle.target).long()
    order = torch.randperm(len(x), generator=generator or torch.Generator().manual_seed(_SPLIT_SEED))
    test, train = order[:test_size], order[test_size:]
    if scale == "unit":
        x = x / 16
    elif scale == "symmetric":
        x = x / 8 - 1
    else:
        spread, mean = torch.std_mean(x[train], 0, correction=0)
        x = (x - mean) / spread.clamp(min=1)
    x = x.to(dtype)
    return Digits(x[train], y[train], x[test], y[test])


def flip_labels(
    y: Int64[Tensor, " n"], fraction: float, num_classes: int, *, generator: torch.Generator | None = None
) -> Int64[Tensor, " n"]:
    """Return labels of which a share is redrawn uniformly from all classes, the true one included.

    Args:
        y: labels ``(n,)``.
        fraction: share of labels redrawn, in [0, 1]; ``round(fraction * n)`` of them, chosen at random.
        num_classes: labels are drawn from 0…num_classes − 1.
        generator: source of randomness; default: the global one.

    Returns:
        New labels ``(n,)``; ``y`` is left as it was.

    Raises:
        TypeError: ``num_classes`` is no integer, ``fraction`` is no number.
        ValueError: ``fraction`` outside [0, 1] or ``num_classes`` < 1.

    >>> flip_labels(torch.zeros(4, dtype=torch.long), 0.0, 10).tolist()
    [0, 0, 0, 0]
    """
    check_number("fraction", fraction, least=0, most=1)
    check_integer("num_classes", num_classes, 1)
    count = round(fraction * len(y))
    chosen = torch.randperm(len(y), generator=generator)[:count]
    flipped = y.clone()
    flipped[chosen.to(y.device)] = torch.randint(num_classes, (count,), generator=generator).to(y)
    return flipped


class Minibatches:
    """Draws minibatches through shuffled epochs, without replacement inside an epoch.

    Call it with a generator: it returns one tensor of ``batch_size`` rows for each given tensor. The last rows of an
    epoch that fill no batch are dropped. ``state_dict`` holds the current epoch's order and the place in it, so that
    a resumed run sees the same batches.

    Args:
        tensors: same first dimension n.
        batch_size: rows of a batch, 1…n.

    Raises:
        TypeError: ``batch_size`` is no integer.
        ValueError: tensors of different length, none at all, or ``batch_size`` outside 1…n.

    >>> sample = Minibatches(torch.arange(4), batch_size=2)
    >>> g = torch.Generator().manual_seed(0)
    >>> sorted(sample(g)[0].tolist() + sample(g)[0].tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, *tensors: Shaped[Tensor, "_ ..."], batch_size: int):
        lengths = [len(t) for t in tensors]
        if len(set(lengths)) != 1:
            raise ValueError(f"tensors: got lengths {lengths}, expected one or more tensors of one length")
        check_integer("batch_size", batch_size, 1, lengths[0])
        self.tensors, self.batch_size = tensors, batch_size
        self._order, self._place = torch.empty(0, dtype=torch.long), 0

    def __call__(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        if self._place + self.batch_size > len(self._order):
            self._order, self._place = torch.randperm(len(self.tensors[0]), generator=generator), 0
        rows = self._order[self._place : self._place + self.batch_size].to(self.tensors[0].device)
        self._place += self.batch_size
        return tuple(t[rows] for t in self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """Return the order of the current epoch and the place in it.

        Returns:
            ``order (n,)`` int64 and ``place``.
        """
        return {"order": self._order.clone(), "place": self._place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved place.

        Args:
            state: what ``state_dict`` returned, for data of the same length.

        Raises:
            ValueError: the state belongs to data of another length.
        """
        if len(state["order"]) not in (0, len(self.tensors[0])):
            raise ValueError(f"state: got an epoch of {len(state['order'])} rows, expected {len(self.tensors[0])}")
        self._order, self._place = state["order"].clone(), state["place"]


def minibatches(*tensors: Shaped[Tensor, "_ ..."], batch_size: int) -> Minibatches:
    """Return a sampler that goes through shuffled epochs without replacement.

    Args:
        tensors: same first dimension n.
        batch_size: rows of a batch, 1…n.

    Returns:
        ``sample(generator) -> tuple`` of tensors with ``batch_size`` rows, with ``state_dict``/``load_state_dict``.

    Raises:
        ValueError: tensors of different length, none at all, or ``batch_size`` outside 1…n.

    >>> x, y = minibatches(torch.zeros(10, 3), torch.zeros(10), batch_size=4)(None)
    >>> x.shape, y.shape
    (torch.Size([4, 3]), torch.Size([4]))
    """
    return Minibatches(*tensors, batch_size=batch_size)


def _split(text: bytes) -> Corpus:
    corpus = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    cut = len(corpus) - len(corpus) // 20
    return Corpus(corpus[:cut], corpus[cut:])


def python_source() -> Corpus:
    """Return the running Python's own standard library as a corpus: source code with its comments and docstrings.

    The top-level ``*.py`` files of the standard library's folder, sorted by name, concatenated; about 4.7 MB. The
    bytes depend on the Python version, so numbers measured on them do too.

    Returns:
        ``Corpus(train, validation)``, the last 5 % for validation.

    >>> bytes(python_source().train[:4]).decode().isprintable()
    True
    """
    folder = Path(sysconfig.get_path("stdlib"))
    return _split(b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"), key=lambda p: p.name)))


def python_topics() -> Corpus:
    """Return the language reference that ships with Python (``pydoc_data.topics``): English prose with code.

    Returns:
        ``Corpus(train, validation)`` of about 0.5 MB, topics in alphabetical order, the last 5 % for validation.

    >>> len(python_topics().train) > 400_000
    True
    """
    spec = importlib.util.find_spec("pydoc_data.topics")
    assert spec is not None  # part of every Python
    assert spec.loader is not None
    topics = importlib.import_module("pydoc_data.topics").topics
    return _split("\n".join(topics[name] for name in sorted(topics)).encode())


def byte_windows(
    corpus: Shaped[Tensor, " n"], length: int, batch_size: int
) -> Callable[[torch.Generator | None], Int64[Tensor, "batch length"]]:
    """Return a sampler of random windows of a corpus.

    Args:
        corpus: token ids ``(n,)``, for example ``python_source().train``.
        length: tokens of a window, 1…n.
        batch_size: windows of a batch, at least 1.

    Returns:
        ``sample(generator) -> (batch_size, length)`` int64, starts drawn uniformly with replacement.

    Raises:
        TypeError: ``length`` or ``batch_size`` is no integer.
        ValueError: ``length`` outside 1…n or ``batch_size`` < 1.

    >>> byte_windows(torch.arange(9), 3, 2)(torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    check_integer("length", length, 1, len(corpus))
    check_integer("batch_size", batch_size, 1)
    offsets = torch.arange(length)

    def sample(generator: torch.Generator | None = None) -> Int64[Tensor, "batch length"]:
        starts = torch.randint(len(corpus) - length + 1, (batch_size, 1), generator=generator)
        return corpus[(starts + offsets).to(corpus.device)].long()

    return sample


def word_tokens(text: bytes, vocab_size: int) -> tuple[Int64[Tensor, " n"], list[str]]:
    r"""Return a text as ids of its words, spaces and signs.

    Tokens are the matches of ``\w+|\s+|[^\w\s]``; the ``vocab_size - 1`` most frequent get ids 1, 2, … in the order
    of their frequency (ties: the one that appears first), all others get id 0.

    Args:
        text: UTF-8; bytes that are not become the replacement sign.
        vocab_size: number of ids, at least 1.

    Returns:
        Ids ``(n,)`` and the list id → token, ``"<unknown>"`` first; shorter than ``vocab_size`` if the text has fewer.

    Raises:
        TypeError: ``vocab_size`` is no integer.
        ValueError: ``vocab_size`` < 1.

    >>> word_tokens(b"a b a c", 3)
    (tensor([2, 1, 0, 1, 2, 1, 0]), ['<unknown>', ' ', 'a'])
    """
    check_integer("vocab_size", vocab_size, 1)
    tokens = re.findall(r"\w+|\s+|[^\w\s]", text.decode("utf-8", errors="replace"))
    vocabulary = ["<unknown>", *(token for token, _ in Counter(tokens).most_common(vocab_size - 1))]
    ids = {token: i for i, token in enumerate(vocabulary) if i}
    return torch.tensor([ids.get(t, 0) for t in tokens], dtype=torch.long), vocabulary


def ngram_entropy(corpus: UInt8[Tensor, " n"], n: Literal[1, 2]) -> float:
    r"""Return the empirical entropy of a byte given the ``n - 1`` bytes before it: what a count table reaches.

    .. math:: H_1=-\sum_a p(a)\log p(a), \qquad H_2=-\sum_{a,b}p(a,b)\log p(b\mid a)

    Args:
        corpus: bytes ``(m,)``, more than ``n`` of them.
        n: 1 (unigram) or 2 (bigram).

    Returns:
        Nats per byte, of the corpus itself; a lower bound for such a model's loss on the same bytes.

    Raises:
        ValueError: ``n`` is neither 1 nor 2, or the corpus is shorter than ``n``.

    >>> import math
    >>> round(ngram_entropy(torch.tensor([0, 1] * 50, dtype=torch.uint8), 1) / math.log(2), 6)
    1.0
    """
    check_one_of("n", n, (1, 2))
    if len(corpus) < n:
        raise ValueError(f"corpus: got {len(corpus)} bytes, expected at least {n}")
    ids = corpus.long()

    def entropy(keys: Tensor) -> float:
        p = torch.bincount(keys).double() / len(keys)
        return -torch.special.xlogy(p, p).sum().item()

    if n == 1:
        return entropy(ids)
    # H(a, b) − H(a), with a over the first bytes of the pairs, so that both count the same events.
    return entropy(ids[:-1] * 256 + ids[1:]) - entropy(ids[:-1])
