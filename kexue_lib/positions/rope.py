r"""Rotary position embedding: the one implementation that the whole library rotates queries and keys with.

Source: Su Jianlin et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021, arXiv 2104.09864;
articles https://kexue.fm/archives/8265 and https://kexue.fm/archives/8231.

Conventions. Head dimension d, rotary dimension ρ ≤ d (even), frequencies :math:`\theta_i=b^{-2i/\rho}`,
i = 0…ρ/2 − 1. Position m turns pair i by the angle :math:`m\theta_i`; the score of a query at m and a key at n is
:math:`(R_mq)^\top(R_nk)=q^\top R_{n-m}k`. Relative distance is r = m − n, query minus key. Layout ``"half"``
(GPT-NeoX, Llama) pairs components i and i + ρ/2, ``"interleaved"`` (RoFormer, GPT-J) pairs 2i and 2i + 1.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.autograd import forward_ad

from kexue_lib._arguments import check_broadcast, check_dtype, check_integer, check_number, check_one_of, check_shape
from kexue_lib._autograd import remember_signature
from kexue_lib._tracing import is_traced

__all__ = [
    "RotaryEmbedding",
    "apply_rotary",
    "cos_sin",
    "inverse_frequencies",
    "layout_permutation",
    "log_length_scale",
]

Layout = Literal["half", "interleaved"]
_LAYOUTS = get_args(Layout)


def inverse_frequencies(
    dim: int, base: float = 10000.0, *, device: torch.device | str | None = None
) -> Float[Tensor, " pairs"]:
    r"""Return the angles per position of every pair.

    .. math:: \theta_i=b^{-2i/d},\qquad i=0,\dots,d/2-1

    Args:
        dim: rotary dimension d, even and positive.
        base: b, positive and finite; 1 gives all ones.
        device: of the result; default: PyTorch's.

    Returns:
        ``(dim // 2,)`` float64, radians per position.

    Raises:
        TypeError: ``dim`` is no integer, ``base`` is no number.
        ValueError: ``dim`` odd or not positive; ``base`` not positive, infinite or NaN.

    Source: arXiv 2104.09864, eq. 15.

    >>> inverse_frequencies(4, 100.0)
    tensor([1.0000, 0.1000], dtype=torch.float64)
    """
    check_integer("dim", dim, 2, even=True)
    check_number("base", base, above=0, below=math.inf)
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    return torch.exp(exponents * -math.log(base))


def cos_sin(
    positions: Shaped[Tensor, "*shape"], inv_freq: Tensor, *, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "*shape pairs"], Float[Tensor, "*shape pairs"]]:
    """Return cosine and sine of every position's angles.

    The angle is formed in float64: in float32 it would carry an error of half an ulp of the *angle*, 0.03 radians at
    position a million, which no later precision repairs.

    Args:
        positions: any shape, integer or floating (fractional positions are legal), in tokens.
        inv_freq: ``(pairs,)`` floating, radians per position.
        dtype: of the results.

    Returns:
        ``cos, sin``, each ``(*shape, pairs)``: within half an ulp of ``dtype`` plus 1e-9 up to position 10⁶.

    Raises:
        TypeError: ``inv_freq`` is not floating, or ``positions`` are complex or boolean.

    >>> cos, sin = cos_sin(torch.tensor([0, 1]), torch.tensor([1.0]))
    >>> cos[:, 0], sin[:, 0]
    (tensor([1.0000, 0.5403]), tensor([0.0000, 0.8415]))
    """
    check_dtype("inv_freq", inv_freq, "floating")
    if positions.is_complex() or positions.dtype == torch.bool:
        raise TypeError(f"positions: got {positions.dtype}, expected a tensor of integer or floating dtype")
    device = positions.device
    if device.type == "mps":  # no float64 there: the table is made on the CPU and moved
        positions, inv_freq = positions.cpu(), inv_freq.cpu()
    angle = positions.to(torch.float64).unsqueeze(-1) * inv_freq.to(device=positions.device, dtype=torch.float64)
    return angle.cos().to(device=device, dtype=dtype), angle.sin().to(device=device, dtype=dtype)


@remember_signature
class _Rotation(torch.autograd.Function):
    """The rotation of pairs; its derivative is the inverse rotation, so nothing of ``x`` has to be kept.

    Eager PyTorch pays for every pass over memory, so the four products go straight into the halves of one result:
    two passes write, two multiply-adds update, and no temporary of the size of ``x`` is made.
    """

    @staticmethod
    def forward(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
        pairs = cos.shape[-1]
        out = torch.empty_like(x)
        if 2 * pairs < x.shape[-1]:
            out[..., 2 * pairs :] = x[..., 2 * pairs :]
        (x1, x2), (out1, out2) = _halves(x, pairs, layout), _halves(out, pairs, layout)
        torch.mul(x1, cos, out=out1).addcmul_(x2, sin, value=-1)
        torch.mul(x2, cos, out=out2).addcmul_(x1, sin)
        return out

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, cos, sin, layout = inputs
        ctx.layout = layout
        ctx.save_for_backward(cos, sin, x if cos.requires_grad or sin.requires_grad else None)
        ctx.save_for_forward(x, cos, sin)

    @staticmethod
    def backward(ctx, grad: Tensor):
        cos, sin, x = ctx.saved_tensors
        grad_x = _rotate(grad, cos, -sin, ctx.layout) if ctx.needs_input_grad[0] else None
        grad_cos = grad_sin = None
        if x is not None:
            (x1, x2), (g1, g2) = _halves(x, cos.shape[-1], ctx.layout), _halves(grad, cos.shape[-1], ctx.layout)
            grad_cos = (g1 * x1 + g2 * x2).sum_to_size(cos.shape)
            grad_sin = (g2 * x1 - g1 * x2).sum_to_size(sin.shape)
        return grad_x, grad_cos, grad_sin, None

    @staticmethod
    def jvp(ctx, x_tangent, cos_tangent, sin_tangent, _):
        x, cos, sin = ctx.saved_tensors
        out = torch.zeros_like(x) if x_tangent is None else _rotate(x_tangent, cos, sin, ctx.layout)
        if cos_tangent is None and sin_tangent is None:
            return out
        pairs = cos.shape[-1]
        cos_tangent = torch.zeros_like(cos) if cos_tangent is None else cos_tangent
        sin_tangent = torch.zeros_like(sin) if sin_tangent is None else sin_tangent
        turned = _rotate(x, cos_tangent, sin_tangent, ctx.layout)
        # Components that are not rotated do not depend on the table.
        return out + torch.cat([turned[..., : 2 * pairs], torch.zeros_like(turned[..., 2 * pairs :])], dim=-1)

    @staticmethod
    def vmap(info, in_dims, x, cos, sin, layout):
        # The rotation broadcasts already: bring the mapped dimension to the front and pad the table's shape.
        x = x.movedim(in_dims[0], 0) if in_dims[0] is not None else x.expand(info.batch_size, *x.shape)
        tables: list[Tensor] = []
        for table, dim in ((cos, in_dims[1]), (sin, in_dims[2])):
            if dim is not None:
                table = table.movedim(dim, 0)
                table = table.reshape(len(table), *(1,) * (x.ndim - table.ndim), *table.shape[1:])
            tables.append(table)
        cos, sin = tables
        return _rotate(x, cos, sin, layout), 0


def _halves(x: Tensor, pairs: int, layout: str) -> tuple[Tensor, Tensor]:
    """Views of the first and the second components of all pairs."""
    if layout == "half":
        return x[..., :pairs], x[..., pairs : 2 * pairs]
    return x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
    if torch.compiler.is_compiling():  # the compiler fuses plain expressions; buffers written in place hinder it
        pairs = cos.shape[-1]
        x1, x2 = _halves(x, pairs, layout)
        turned = (x1 * cos - x2 * sin, x1 * sin + x2 * cos)
        if layout == "half":
            return torch.cat([*turned, x[..., 2 * pairs :]], dim=-1)
        return torch.cat([torch.stack(turned, dim=-1).flatten(-2), x[..., 2 * pairs :]], dim=-1)
    differentiated = torch.is_grad_enabled() and (x.requires_grad or cos.requires_grad or sin.requires_grad)
    if differentiated or is_traced() or forward_ad._current_level >= 0:
        return _Rotation.apply(x, cos, sin, layout)
    return _Rotation.forward(x, cos, sin, layout)  # binding the arguments for autograd takes longer than a short turn


def apply_rotary(
    x: Float[Tensor, "*batch n d"],
    cos: Float[Tensor, "*#table n_or_1 pairs"],
    sin: Float[Tensor, "*#table n_or_1 pairs"],
    *,
    layout: Layout = "half",
    inverse: bool = False,
) -> Float[Tensor, "*batch n d"]:
    r"""Rotate the first ``2 * pairs`` components of every vector, pair by pair.

    .. math:: \begin{pmatrix}x_1'\\x_2'\end{pmatrix}=
              \begin{pmatrix}\cos&-\sin\\\sin&\cos\end{pmatrix}\begin{pmatrix}x_1\\x_2\end{pmatrix}

    Args:
        x: ``(..., heads, n, d)``.
        cos: ``(..., n, pairs)`` from :func:`cos_sin`; leading dimensions broadcast against those of ``x``.
        sin: the same shape.
        layout: which components form a pair, see the module.
        inverse: rotate back, :math:`R^{-1}=R^\top`.

    Returns:
        A new tensor like ``x``; components from ``2 * pairs`` on are copied bit by bit. Half types are rotated in
        float32 and rounded once.

    Raises:
        ValueError: the rotary dimension ``2 * pairs`` exceeds d, a table that does not broadcast to ``x``, or an
            unknown ``layout``.

    Cost: one read and one write of ``x``; the table is shared by the heads. The gradient is the inverse rotation
    and keeps nothing of ``x``. Source: arXiv 2104.09864, eq. 34.

    >>> cos, sin = cos_sin(torch.tensor([1]), torch.tensor([torch.pi / 2]))
    >>> apply_rotary(torch.tensor([[1.0, 0.0]]), cos, sin).round()
    tensor([[-0., 1.]])
    """
    check_one_of("layout", layout, _LAYOUTS)
    for name, tensor in (("x", x), ("cos", cos), ("sin", sin)):
        check_dtype(name, tensor, "floating")
        check_shape(name, tensor, ("...", "n", "d"))
    check_shape("sin", sin, ("...", cos.shape[-1]), "as cos has")
    rotary_dim = 2 * cos.shape[-1]
    if rotary_dim > x.shape[-1]:
        raise ValueError(f"cos: got rotary dimension {rotary_dim}, expected at most {x.shape[-1]}, the width of x")
    for name, table in (("cos", cos), ("sin", sin)):
        check_broadcast(name, table[..., :1], (*x.shape[:-1], 1), "x, last dimension aside")
    work = torch.promote_types(x.dtype, torch.float32)
    cos, sin = cos.to(work), sin.to(work)
    if inverse:
        sin = -sin
    return _rotate(x.to(work), cos, sin, layout).to(x.dtype)


def layout_permutation(
    dim: int, *, rotary_dim: int | None = None, source: Layout = "interleaved", target: Layout = "half"
) -> Int64[Tensor, " dim"]:
    """Return the permutation that carries one layout to the other: ``x_target = x_source[..., p]``.

    Rotating in the target layout after permuting equals permuting after rotating in the source layout. Applied to
    the rows of W_q and W_k (and their biases) of every head it converts a checkpoint.

    Args:
        dim: head dimension d.
        rotary_dim: ρ, even; default d. Components past it stay.
        source: layout of what is given.
        target: layout of what is wanted.

    Returns:
        ``(dim,)`` int64.

    Raises:
        TypeError: ``rotary_dim`` is no integer.
        ValueError: ``rotary_dim`` odd, not positive or larger than ``dim``; an unknown ``source`` or ``target``.

    >>> layout_permutation(6, rotary_dim=4)
    tensor([0, 2, 1, 3, 4, 5])
    """
    rotary_dim = dim if rotary_dim is None else rotary_dim
    check_integer("rotary_dim", rotary_dim, 2, dim, most_is="dim", even=True)
    for name, layout in (("source", source), ("target", target)):
        check_one_of(name, layout, _LAYOUTS)
    index = torch.arange(dim)
    if source == target:
        return index
    shape = (rotary_dim // 2, 2) if source == "interleaved" else (2, rotary_dim // 2)
    index[:rotary_dim] = index[:rotary_dim].view(shape).T.reshape(-1)
    return index


def log_length_scale(positions: Tensor, train_length: int, *, clip: bool = True) -> Float[Tensor, "*shape"]:
    r"""Return the factors by which queries grow so that attention keeps its entropy beyond the training length.

    .. math:: s(p)=\frac{\log(p+1)}{\log L},\qquad\text{clipped: }\max(1,s(p))

    Args:
        positions: absolute positions p ≥ 0 in tokens, any shape.
        train_length: L, at least 2 tokens.
        clip: leave positions inside the training length alone.

    Returns:
        float64, the shape of ``positions``.

    Raises:
        TypeError: ``train_length`` is no integer.
        ValueError: ``train_length`` below 2.

    Source: https://kexue.fm/archives/8823 (log n scaling).

    >>> log_length_scale(torch.tensor([0, 511, 262143]), 512)
    tensor([1., 1., 2.], dtype=torch.float64)
    """
    check_integer("train_length", train_length, 2)
    scale = torch.log1p(positions.to(torch.float64)) / math.log(train_length)
    return scale.clamp(min=1.0) if clip else scale


class RotaryEmbedding(nn.Module):
    """Rotates queries and keys by their positions; the position object that decoder models take.

    Frequencies are plain float64 attributes rebuilt from the constructor's arguments, not buffers: casting a model
    to bfloat16 or loading a checkpoint cannot damage them. Tables for integer positions 0…n − 1 are cached for each
    device and dtype and grow by doubling; fractional positions bypass them.

    Args:
        dim: head dimension.
        base: b of the frequencies; ignored when ``inv_freq`` is given.
        rotary_dim: components that are rotated; default ``dim``.
        layout: which components form a pair.
        inv_freq: other frequencies ``(rotary_dim // 2,)``, radians per position.
        attention_factor: multiplies cosine and sine, so that logits grow by its square (YaRN's temperature).

    Raises:
        TypeError: ``rotary_dim`` is no integer.
        ValueError: ``rotary_dim`` odd, not positive or above ``dim``; ``inv_freq`` of another length; bad ``base``.

    >>> rope = RotaryEmbedding(8)
    >>> q = k = torch.ones(1, 2, 3, 8)
    >>> q_rotated, k_rotated = rope(q, k)
    >>> q_rotated.shape
    torch.Size([1, 2, 3, 8])
    """

    cache_raw_keys: bool = False

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        *,
        rotary_dim: int | None = None,
        layout: Layout = "half",
        inv_freq: Tensor | None = None,
        attention_factor: float = 1.0,
    ):
        super().__init__()
        self.dim, self.base = dim, base
        self.layout: Layout = layout
        self.rotary_dim = dim if rotary_dim is None else rotary_dim
        self.attention_factor = attention_factor
        check_integer("rotary_dim", self.rotary_dim, 2, dim, most_is="dim", even=True)
        check_one_of("layout", layout, _LAYOUTS)
        if inv_freq is None:
            inv_freq = inverse_frequencies(self.rotary_dim, base, device="cpu")  # also under torch.device("meta")
        check_shape("inv_freq", inv_freq, (self.rotary_dim // 2,))
        self.inv_freq = inv_freq.detach().to(device="cpu", dtype=torch.float64)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._latest: tuple[Tensor, Tensor, tuple, tuple[Tensor, Tensor]] | None = None

    def __getstate__(self):
        return {**self.__dict__, "_tables": {}, "_latest": None}  # copies and pickles rebuild the tables

    def _table(self, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        table = self._tables.get((device, dtype))
        if table is None or len(table[0]) < length:
            size = max(length, 2 * len(table[0]) if table else 256)
            with torch.inference_mode(False):  # what is made there could not be used in training later
                positions = torch.arange(size, device=self.inv_freq.device)
                cos, sin = cos_sin(positions, self.inv_freq, dtype=torch.float64)
                cos, sin = ((t * self.attention_factor).to(device=device, dtype=dtype) for t in (cos, sin))
                table = cos, sin
            self._tables[device, dtype] = table
        return table

    def table(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return cosine and sine for these positions, times ``attention_factor``.

        Args:
            positions: any shape, integer or floating.
            dtype: of the results.

        Returns:
            Two tensors ``(*positions.shape, rotary_dim // 2)``.
        """
        cos, sin = cos_sin(positions, self.inv_freq, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        return (cos * self.attention_factor).to(dtype), (sin * self.attention_factor).to(dtype)

    def _contiguous(self, start: int, count: int, x: Tensor) -> tuple[Tensor, Tensor]:
        work = torch.promote_types(x.dtype, torch.float32)
        cos, sin = self._table(start + count, x.device, work)
        return cos[start : start + count], sin[start : start + count]

    def rotate(self, x: Float[Tensor, "*batch n d"], positions: Tensor) -> Float[Tensor, "*batch n d"]:
        """Return vectors rotated to their positions.

        Args:
            x: ``(..., heads, n, d)``.
            positions: ``(n,)``, or the batch dimensions of ``x`` without heads followed by n; tokens.

        Returns:
            Rotated vectors, the shape and dtype of ``x``.

        Raises:
            ValueError: ``positions`` of another shape.
        """
        check_broadcast("positions", positions, (*x.shape[:-3], x.shape[-2]), "the batch and the length of x")
        cos, sin = self._table_of(positions, torch.promote_types(x.dtype, torch.float32))
        if positions.ndim > 1:  # (batch, n, pairs) -> (batch, 1, n, pairs): all heads share the table
            cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
        return apply_rotary(x, cos, sin, layout=self.layout)

    def _table_of(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The table of these positions, kept for the next call: queries and keys of all layers ask for the same."""
        if is_traced() or positions.is_inference():  # nothing tells whether those were written over
            return self.table(positions, dtype)
        key, held = (positions._version, dtype, self.attention_factor), self._latest
        if held is None or held[0] is not positions or held[1] is not self.inv_freq or held[2] != key:
            with torch.inference_mode(False):
                self._latest = held = (positions, self.inv_freq, key, self.table(positions, dtype))
        return held[3]

    def forward(
        self,
        q: Float[Tensor, "*batch_q n_q d"],
        k: Float[Tensor, "*batch_k n_k d"],
        q_positions: Tensor | None = None,
        k_positions: Tensor | None = None,
        *,
        offset: int = 0,
    ) -> tuple[Float[Tensor, "*batch_q n_q d"], Float[Tensor, "*batch_k n_k d"]]:
        """Return rotated queries and keys.

        Args:
            q: ``(..., heads, n_q, d)``.
            k: ``(..., kv_heads, n_k, d)``.
            q_positions: default ``offset + arange(n_q)``.
            k_positions: default ``arange(n_k)``.
            offset: number of keys that are in a cache before these queries.

        Returns:
            ``q`` and ``k`` rotated.
        """
        if q_positions is None:
            q = apply_rotary(q, *self._contiguous(offset, q.shape[-2], q), layout=self.layout)
        else:
            q = self.rotate(q, q_positions)
        if k_positions is None:
            k = apply_rotary(k, *self._contiguous(0, k.shape[-2], k), layout=self.layout)
        else:
            k = self.rotate(k, k_positions)
        return q, k
