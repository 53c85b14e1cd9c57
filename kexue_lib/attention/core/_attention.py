"""Softmax attention with end-aligned causal masks, windows and grouped queries, and the masks themselves."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from kexue_lib._arguments import check_dtype, check_integer, check_number

_LONG = 64  # queries from which on the score matrix is too large to be written out


def causal_mask(
    L: int, S: int | None = None, *, window: int | None = None, device: torch.device | str | None = None
) -> Bool[Tensor, "L S"]:
    """Return which keys each query sees when queries are the last ``L`` of ``S`` tokens.

    Key j is visible to query i iff j ≤ i + (S − L), and j > i + (S − L) − window.

    Args:
        L: queries.
        S: keys; default L.
        window: last visible positions, own position included; None for all.
        device: of the result.

    Returns:
        ``(L, S)`` bool, True where visible.

    Raises:
        TypeError: ``window`` is no integer.
        ValueError: ``window`` < 1.

    >>> causal_mask(2, 3).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    S = L if S is None else S
    own = torch.arange(L, device=device)[:, None] + (S - L)
    key = torch.arange(S, device=device)
    visible = key <= own
    if window is not None:
        check_integer("window", window, 1)
        visible = visible & (key > own - window)
    return visible


def prefix_mask(
    L: int, prefix: int | Int[Tensor, " batch"], *, device: torch.device | str | None = None
) -> Bool[Tensor, "*batch L L"]:
    """Return a mask that is bidirectional inside a prefix and causal after it.

    Args:
        L: tokens.
        prefix: length of the prefix, or one for each row of the batch.
        device: of the result; default that of ``prefix``.

    Returns:
        ``(L, L)`` bool; for a tensor ``(batch, 1, L, L)``, which broadcasts over heads.

    >>> prefix_mask(3, 2).int()
    tensor([[1, 1, 0],
            [1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    if isinstance(prefix, Tensor):
        device = prefix.device if device is None else device
        prefix = prefix.to(device)[:, None, None, None]
    return causal_mask(L, device=device) | (torch.arange(L, device=device) < prefix)


def segment_mask(ids: Int[Tensor, "batch L"]) -> Bool[Tensor, "batch 1 L L"]:
    """Return a causal mask inside each of several documents packed into one row.

    Args:
        ids: document of each token.

    Returns:
        ``(batch, 1, L, L)`` bool.

    >>> segment_mask(torch.tensor([[0, 0, 1]]))[0, 0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    same = ids[:, None, :, None] == ids[:, None, None, :]
    return same & causal_mask(ids.shape[-1], device=ids.device)


def attention(
    query: Float[Tensor, "*batch_q H L Dk"],
    key: Float[Tensor, "*batch_k Hk S Dk2"],
    value: Float[Tensor, "*batch_v Hk2 S2 Dv"],
    *,
    mask: Shaped[Tensor, "..."] | None = None,
    causal: bool = False,
    window: int | None = None,
    scale: float | Float[Tensor, "..."] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "*batch H L Dv"]:
    r"""Softmax attention.

    .. math:: o_i=\sum_jp_{ij}v_j,\qquad p_{i\cdot}=\operatorname{softmax}_j\big(s\,q_i\cdot k_j+m_{ij}\big)

    Args:
        query: ``(..., H, L, Dk)``.
        key: ``(..., Hk, S, Dk)``; ``Hk`` divides ``H`` and query head h uses key head h // (H // Hk).
        value: ``(..., Hk, S, Dv)``; ``Dv`` may differ from ``Dk``.
        mask: boolean (True is visible) or floating (added to the scores), broadcastable to ``(..., H, L, S)``.
        causal: key j is visible to query i iff j ≤ i + (S − L): aligned to the end, as with a cache before the
            queries.
        window: additionally the last ``window`` visible positions only; without ``causal`` |i + S − L − j| < window.
        scale: s, default ``Dk ** -0.5``; a tensor broadcastable to ``(..., H, L, 1)`` for one scale per head or
            position.
        dropout: probability of dropping a weight.

    Returns:
        ``(..., H, L, Dv)``. A query that sees no key gets 0, with zero gradients.

    Raises:
        ValueError: ``H`` no multiple of ``Hk``, different ``Dk``, ``S`` or ``Hk``, or ``window`` < 1.
        TypeError: an integer ``mask``.

    Cost: O(L S (Dk + Dv)) per head; for plain causal and unmasked input no L × S matrix is stored, and keys are
    never repeated for grouped queries.

    >>> q = k = v = torch.eye(2).view(1, 2, 2)
    >>> attention(q, k, v, causal=True)[0, 0]
    tensor([1., 0.])
    """
    _check(query, key, value, mask, window, dropout)
    (L, Dk), S = query.shape[-2:], key.shape[-2]
    if isinstance(scale, Tensor):
        query, scale = query * scale.to(query.dtype), 1.0
    factor: float = Dk**-0.5 if scale is None else scale
    check_number("scale", factor)
    if not query.shape[:-3] == key.shape[:-3] == value.shape[:-3]:
        batch = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
        query, key, value = (t.expand(*batch, *t.shape[-3:]) for t in (query, key, value))
    if causal and L == 1:  # the last token sees everything, or the last `window` keys: no mask at all
        if window is not None:
            start = max(0, S - window)
            key, value = key[..., start:, :], value[..., start:, :]
            mask = mask[..., start:] if mask is not None and mask.shape[-1] > 1 else mask
        causal, window = False, None
    elif causal and window is not None and window >= S:
        window = None
    from_start = causal and mask is None and window is None
    if L != S:  # an `if` makes a plain bool of sizes that a compiled graph keeps open
        from_start = False  # PyTorch's own flag aligns to the start
    if from_start or (mask is None and not causal and window is None):
        return _dispatch(query, key, value, None, from_start, factor, dropout)
    mask, seen = _combined(mask, query, key.shape[-2], causal, window)
    out = _dispatch(query, key, value, mask, False, factor, dropout)
    return out if seen is None else torch.where(seen, out, 0.0)


def _combined(
    mask: Tensor | None, query: Tensor, S: int, causal: bool, window: int | None
) -> tuple[Tensor, Tensor | None]:
    """All conditions as one mask, and which queries see a key at all; blind ones see everything and are zeroed."""
    L, device = query.shape[-2], query.device
    visible = None
    if causal:
        visible = causal_mask(L, S, window=window, device=device)
    elif window is not None:
        offset = torch.arange(L, device=device)[:, None] + (S - L) - torch.arange(S, device=device)
        visible = offset.abs() < window
    if mask is None or mask.dtype == torch.bool:
        visible = mask if visible is None else visible if mask is None else visible & mask
        assert visible is not None  # there is a condition at least
        seen = visible.any(-1, keepdim=True)
        return visible | ~seen, seen
    mask = mask.to(query.dtype)
    if visible is not None:
        mask = mask.masked_fill(~visible, -torch.inf)
    seen = ~mask.isneginf().all(-1, keepdim=True)
    return torch.where(seen, mask, 0.0), seen


def _dispatch(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float, dropout: float
) -> Tensor:
    """Bring the input to the form that PyTorch's fused kernels take."""
    *batch, H, L, Dk = query.shape
    Hk, Dv = key.shape[-3], value.shape[-1]
    if mask is not None and mask.ndim < query.ndim:
        mask = mask.expand(*(1,) * (query.ndim - mask.ndim), *mask.shape)
    if L == 1 and Hk < H:  # the heads of a group become queries of one head: the keys are read once
        query = query.reshape(*batch, Hk, H // Hk, Dk)
        if mask is not None:
            mask = mask.expand(*mask.shape[:-3], H, 1, mask.shape[-1]).reshape(*mask.shape[:-3], Hk, H // Hk, -1)
        return _dispatch(query, key, value, mask, False, scale, dropout).reshape(*batch, H, 1, Dv)
    if L >= _LONG and Dk != Dv:  # fused kernels want one width, and zeros change neither scores nor outputs
        width = max(Dk, Dv)
        query, key = pad(query, (0, width - Dk)), pad(key, (0, width - Dk))
        return _dispatch(query, key, pad(value, (0, width - Dv)), mask, causal, scale, dropout)[..., :Dv]
    options = {"attn_mask": mask, "is_causal": causal, "scale": scale, "dropout_p": dropout, "enable_gqa": False}
    if Hk < H:  # as above: an `if` makes a plain bool
        options["enable_gqa"] = True
    if len(batch) == 1:
        return scaled_dot_product_attention(query, key, value, **options)
    query, key, value = (t.reshape(-1, *t.shape[-3:]) for t in (query, key, value))
    if mask is not None:
        options["attn_mask"] = mask.expand(*batch, *mask.shape[-3:]).reshape(-1, *mask.shape[-3:])
    return scaled_dot_product_attention(query, key, value, **options).reshape(*batch, H, L, Dv)


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, window: int | None, dropout: float) -> None:
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_dtype(name, x, "floating")
        if x.dim() < 3:
            raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected (..., heads, length, width)")
    for name, what, got, expected, other in (
        ("key", "head dimension", key.shape[-1], query.shape[-1], "query"),
        ("value", "length", value.shape[-2], key.shape[-2], "key"),
        ("value", "number of heads", value.shape[-3], key.shape[-3], "key"),
    ):
        if got != expected:
            raise ValueError(f"{name}: got {what} {got}, expected {expected} as {other} has")
    if query.shape[-3] % key.shape[-3]:
        raise ValueError(f"query: got {query.shape[-3]} heads, expected a multiple of the {key.shape[-3]} of key")
    if mask is not None and not (isinstance(mask, Tensor) and (mask.dtype == torch.bool or mask.is_floating_point())):
        got = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"mask: got {got}, expected a tensor of bool or floating dtype")
    if window is not None:
        check_integer("window", window, 1)
    check_number("dropout", dropout, least=0, most=1)
