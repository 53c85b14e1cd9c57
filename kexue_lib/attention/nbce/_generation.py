"""Rows with different contexts, fed through one model in step: batches, adapters and the loop of generation."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from kexue_lib._arguments import check_dtype, check_integer, check_shape
from kexue_lib.attention.core import Cache, DecoderLM, sample
from kexue_lib.attention.nbce._merge import divergence, nbce_logits

Template = Callable[[Tensor, Tensor], Tensor]
SHOWN = 5  # tokens of the merged distribution in a trace
PADDING = 0.3  # share of padding above which a prefill is split in two


@runtime_checkable
class CausalLM(Protocol):
    """What :func:`generate_nbce` asks of a model.

    ``prefill(ids, mask)`` reads left-padded rows ``(R, L)`` and returns the logits ``(R, V)`` after the last token and
    a state; ``step(tokens, state)`` reads one token ``(R,)`` for each row and returns the same.
    """

    def prefill(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        """Read the prompts."""
        ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read one more token of each row."""
        ...


class NBCETrace(NamedTuple):
    """What happened at each of T steps.

    ``index`` ``(T,)``, the chosen context; ``entropy`` ``(T, n)`` in nats; ``top_tokens`` ``(T, 5)``, the best merged
    tokens, and ``top_logits`` ``(T, 5)``, their merged logits; ``divergence`` ``(T, n)`` from the prior, in nats.
    """

    index: Int64[Tensor, " steps"]
    entropy: Float[Tensor, "steps n"]
    top_tokens: Int64[Tensor, "steps shown"]
    top_logits: Float[Tensor, "steps shown"]
    divergence: Float[Tensor, "steps n"]


def nbce_batch(
    contexts: Sequence[Int[Tensor, "..."]],
    question: Int[Tensor, "..."],
    *,
    template: Template | None = None,
    pad_id: int = 0,
) -> tuple[Int[Tensor, "rows L"], Int64[Tensor, "rows L"]]:
    """Return one left-padded row for no context and one for each context.

    Args:
        contexts: ids of each, of any lengths.
        question: ids that follow each context.
        template: ``template(context, question)`` returns the ids of a row; default: one after the other.
        pad_id: fills the left of shorter rows.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``(n + 1, L)``; row 0 has the empty context.

    Raises:
        ValueError: no contexts, an id tensor that is not one-dimensional, or a row without a token.
        TypeError: ids that are no integers.

    >>> ids, mask = nbce_batch([torch.tensor([5, 6])], torch.tensor([9]), pad_id=0)
    >>> ids.tolist(), mask.tolist()
    ([[0, 0, 9], [5, 6, 9]], [[0, 0, 1], [1, 1, 1]])
    """
    _check_ids(contexts, question)
    make = template if template is not None else lambda context, asked: torch.cat([context, asked])
    rows = [make(context, question) for context in (question[:0], *contexts)]
    if not all(len(row) for row in rows):
        raise ValueError("question: got a row without a token, expected one such as BOS in the row without context")
    longest = max(len(row) for row in rows)
    ids = torch.stack([F.pad(row, (longest - len(row), 0), value=pad_id) for row in rows])
    mask = torch.stack([F.pad(torch.ones(len(row)), (longest - len(row), 0)) for row in rows])
    return ids, mask.to(ids.device, torch.int64)


def core_adapter(model: DecoderLM, *, max_new_tokens: int = 256) -> CausalLM:
    """Return a :class:`CausalLM` over a :class:`~kexue_lib.attention.core.DecoderLM`.

    Padding is never attended to and never shifts a position. Rows of equal length go through together where the model
    could not skip padding (a convolution, a position object with ``attend``).

    Args:
        model: read only.
        max_new_tokens: room in the cache behind the prompts.
    """
    return _CoreRows(model, max_new_tokens)


def hf_adapter(model: nn.Module) -> CausalLM:
    """Return a :class:`CausalLM` over a causal language model of Hugging Face transformers.

    Args:
        model: takes ``input_ids``, ``attention_mask``, ``position_ids``, ``past_key_values``, ``use_cache``.
    """
    return _HuggingFaceRows(model)


@torch.no_grad()
def generate_nbce(
    model: CausalLM | nn.Module,
    contexts: Sequence[Int[Tensor, "..."]],
    question: Int[Tensor, "..."],
    *,
    max_new_tokens: int,
    eos: int | None = None,
    temperature: float | int = 0.0,
    generator: torch.Generator | None = None,
    template: Template | None = None,
    return_trace: bool = False,
    **nbce_options: Any,
) -> Int64[Tensor, " T"] | tuple[Int64[Tensor, " T"], NBCETrace]:
    r"""Answer a question from n contexts, each read on its own.

    Every step merges the n + 1 rows with :func:`nbce_logits`, draws one token and feeds it to all rows.

    Args:
        model: a ``DecoderLM``, a causal model of transformers, or a :class:`CausalLM`.
        contexts: ids of each, of any lengths.
        question: ids that follow each context.
        max_new_tokens: steps.
        eos: generation ends after this token; reading it back is the only wait for the device.
        temperature: of the merged logits; 0 takes the largest.
        generator: source of randomness.
        template: see :func:`nbce_batch`.
        return_trace: also return an :class:`NBCETrace`.
        **nbce_options: of :func:`nbce_logits`.

    Returns:
        New tokens ``(T,)``, T ≤ ``max_new_tokens``, ``eos`` included; with ``return_trace`` a pair.

    Raises:
        TypeError: a model of another kind.
        ValueError: ``max_new_tokens`` < 1, and those of :func:`nbce_batch` and :func:`nbce_logits`.

    Cost: one prefill of n + 1 rows, at most two padded batches, then n + 1 rows of one token a step.

    >>> from kexue_lib.attention.core import LMConfig
    >>> model = DecoderLM(LMConfig(vocab_size=11, d_model=16, n_layers=1, n_heads=2))
    >>> generate_nbce(model, [torch.tensor([1, 2]), torch.tensor([3])], torch.tensor([4]), max_new_tokens=3).shape
    torch.Size([3])
    """
    check_integer("max_new_tokens", max_new_tokens, 1)
    rows = _adapter(model, max_new_tokens)
    ids, mask = nbce_batch(contexts, question, template=template)
    tokens, steps, previous = [], [], None
    logits, state = rows.prefill(ids, mask)
    for step in range(max_new_tokens):
        out = nbce_logits(logits[1:], logits[0], previous=previous, **nbce_options)
        token, previous = sample(out.logits, temperature=temperature, generator=generator), out.index
        tokens.append(token)
        if return_trace:
            top = out.logits.topk(min(SHOWN, out.logits.shape[-1]))
            changed = divergence(logits[1:], logits[0])
            steps.append((out.index, out.entropy, top.indices, top.values, changed))
        if step + 1 == max_new_tokens or (eos is not None and token.item() == eos):
            break
        logits, state = rows.step(token.expand(len(ids)), state)
    answer = torch.stack(tokens)
    if not return_trace:
        return answer
    return answer, NBCETrace(*(torch.stack(part) for part in zip(*steps)))


@torch.no_grad()
def parallel_context_windows(
    model: DecoderLM,
    contexts: Sequence[Int[Tensor, "..."]],
    question: Int[Tensor, "..."],
    *,
    max_new_tokens: int,
    eos: int | None = None,
    temperature: float | int = 0.0,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, " T"]:
    """Answer with parallel context windows (Ratner et al., arXiv 2212.10947).

    Contexts do not see one another and end at the same position; question and answer follow and see all of them. Each
    context is read on its own and the caches are joined, which is the block-diagonal mask exactly, convolutions
    included, at a cost linear in n.

    Args:
        model: read only.
        contexts: ids of each, with a BOS of its own where the model knows one.
        question: ids after them.
        max_new_tokens: steps.
        eos: generation ends after this token.
        temperature: of the logits; 0 takes the largest.
        generator: source of randomness.

    Returns:
        New tokens ``(T,)``, T ≤ ``max_new_tokens``.

    Raises:
        TypeError: ``max_new_tokens`` is no integer.
        ValueError: no contexts, an empty context or question, or ``max_new_tokens`` < 1.

    >>> from kexue_lib.attention.core import LMConfig
    >>> model = DecoderLM(LMConfig(vocab_size=11, d_model=16, n_layers=1, n_heads=2))
    >>> windows = [torch.tensor([1, 2]), torch.tensor([3])]
    >>> parallel_context_windows(model, windows, torch.tensor([4]), max_new_tokens=3).shape
    torch.Size([3])
    """
    check_integer("max_new_tokens", max_new_tokens, 1)
    _check_ids(contexts, question)
    if not len(question) or not all(len(c) for c in contexts):
        raise ValueError("contexts: got an empty context or question, expected at least one token each")
    lengths = [len(context) for context in contexts]
    start, room = max(lengths), sum(lengths) + len(question) + max_new_tokens
    cache, device = model.new_cache(1, room), question.device
    for context, length in zip(contexts, lengths):
        own = model.new_cache(1, length)
        model(context[None], positions=torch.arange(start - length, start, device=device), cache=own, last_only=True)
        for joined, part in zip(_layers(cache), _layers(own)):
            joined.append(*part.buffers)
    tokens, new = [], question
    for _ in range(max_new_tokens):
        positions = torch.arange(start, start + len(new), device=device)
        logits = model(new[None], positions=positions, cache=cache, last_only=True)[0, -1]
        new, start = sample(logits, temperature=temperature, generator=generator)[None], start + len(new)
        tokens.append(new)
        if eos is not None and new.item() == eos:
            break
    return torch.cat(tokens)


def _layers(cache: Cache) -> list:
    return [*cache.layers, *(c for c in cache.convolutions if c is not None), cache.positions]


class _Part(NamedTuple):
    """Rows of one batch: which they are, what is visible ``(rows, L)``, the next position of each, their cache."""

    rows: Tensor
    visible: Tensor
    next: Tensor
    cache: Any


class _Rows(ABC):
    """Splits rows into batches by length, and puts the logits together again.

    With `exact` there is no padding at all; else one batch, or two where the padding would exceed 30 %.
    """

    exact = False

    def prefill(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, list[_Part]]:
        logits, parts = [], []
        for rows in by_length(mask.sum(-1), exact=self.exact):
            longest = int(mask[rows].sum(-1).max())
            visible = mask[rows, ids.shape[1] - longest :].bool()
            positions = (visible.long().cumsum(-1) - 1).clamp(min=0)  # padding must not shift a position
            out, cache = self._read(ids[rows, ids.shape[1] - longest :], visible, positions, None)
            logits.append(out)
            parts.append(_Part(rows, visible, positions[:, -1] + 1, cache))
        return _in_order(logits, parts), parts

    def step(self, tokens: Tensor, state: list[_Part]) -> tuple[Tensor, list[_Part]]:
        logits, parts = [], []
        for part in state:
            visible = F.pad(part.visible, (0, 1), value=True)
            out, cache = self._read(tokens[part.rows, None], visible, part.next[:, None], part.cache)
            logits.append(out)
            parts.append(_Part(part.rows, visible, part.next + 1, cache))
        return _in_order(logits, parts), parts

    @abstractmethod
    def _read(self, ids: Tensor, visible: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Last logits and cache after more tokens; `cache` is None at the beginning."""


class _CoreRows(_Rows):
    def __init__(self, model: DecoderLM, room: int):
        self.model, self.room = model, room
        self.exact = bool(model.config.conv_width) or hasattr(model.position, "attend")

    @torch.no_grad()
    def _read(self, ids: Tensor, visible: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        if cache is None:
            cache = self.model.new_cache(len(ids), ids.shape[1] + self.room)
        mask = visible[:, None, None, :]
        if self.exact:  # rows of equal length: nothing to hide, and one position for all
            mask, positions = None, positions[0]
        return self.model(ids, positions=positions, mask=mask, cache=cache, last_only=True)[:, -1], cache


class _HuggingFaceRows(_Rows):
    def __init__(self, model: nn.Module):
        self.model = model
        # Logits of whole prompts would not fit for a large vocabulary.
        self.last_only = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def _read(self, ids: Tensor, visible: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        options = {"logits_to_keep": 1} if self.last_only else {}
        out = self.model(
            input_ids=ids, attention_mask=visible.long(), position_ids=positions, past_key_values=cache,
            use_cache=True, **options,
        )  # fmt: skip
        return out.logits[:, -1], out.past_key_values


def by_length(lengths: Int[Tensor, " rows"], *, exact: bool = False) -> list[Int64[Tensor, " part"]]:
    """Return the rows of each batch of a prefill.

    One batch; two where padding would be more than 30 % of it, cut where the least is left.

    Args:
        lengths: tokens of each row.
        exact: one batch for each length instead.

    >>> [rows.tolist() for rows in by_length(torch.tensor([1, 9, 10]))]
    [[0], [1, 2]]
    """
    order, ordered = lengths.argsort(stable=True), sorted(lengths.tolist())
    rows, longest = len(ordered), ordered[-1]
    if exact:
        cuts = [k for k in range(1, rows) if ordered[k] != ordered[k - 1]]
    elif sum(ordered) >= (1 - PADDING) * rows * longest:
        cuts = []
    else:
        cuts = [min(range(1, rows), key=lambda k: k * ordered[k - 1] + (rows - k) * longest)]
    return [part.sort().values for part in order.tensor_split(cuts)]


def _in_order(logits: list[Tensor], parts: list[_Part]) -> Tensor:
    order = torch.cat([part.rows for part in parts])
    return torch.cat(logits)[order.argsort()]


def _adapter(model: Any, max_new_tokens: int) -> CausalLM:
    if isinstance(model, CausalLM):
        return model
    if isinstance(model, DecoderLM):
        return core_adapter(model, max_new_tokens=max_new_tokens)
    if hasattr(model, "prepare_inputs_for_generation"):
        return hf_adapter(model)
    raise TypeError(f"model: got {type(model).__name__}, expected a DecoderLM, a transformers model or a CausalLM")


def _check_ids(contexts: Sequence[Tensor], question: Tensor) -> None:
    if not len(contexts):
        raise ValueError("contexts: got none, expected at least one")
    for name, ids in (("question", question), *((f"contexts[{i}]", c) for i, c in enumerate(contexts))):
        check_dtype(name, ids, "integer")
        check_shape(name, ids, ("length",))
