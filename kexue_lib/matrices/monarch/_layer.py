"""A linear layer of any shape with a Monarch matrix, and the conversion of models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kexue_lib._arguments import check_integer
from kexue_lib.matrices.monarch._product import monarch_dense, monarch_matmul
from kexue_lib.matrices.monarch._projection import monarch_project


class MonarchLinear(nn.Module):
    r"""``nn.Linear`` with a Monarch weight: rows x (..., in) to rows (..., out).

    The input is padded with zeros to K·l features and the output cut off after ``out_features`` of I·J, with
    l = ⌈in/K⌉ and I = ⌈out/J⌉, so that every shape has a layer. Parameters ``L (J, I, K·q)``, ``R (K, J·q, l)`` and
    ``bias (out,)``.

    Args:
        in_features: size of a row of the input.
        out_features: size of a row of the output.
        nblocks_in: K; default a divisor of ``in_features`` near its square root, or else that root rounded.
        nblocks_out: J; default the same for ``out_features``.
        rank: q, from 1 to min(I, l).
        bias: whether there is one.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, more blocks than features, or ``rank`` outside its range.

    The initial weight has independent factors, uniform, such that an entry of it has the variance 1/(3·in) of
    ``nn.Linear``, half of it, on a logarithmic scale, due to either factor. Cost: as :func:`monarch_matmul`.

    >>> MonarchLinear(100, 60)(torch.zeros(2, 100)).shape
    torch.Size([2, 60])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        nblocks_in: int | None = None,
        nblocks_out: int | None = None,
        *,
        rank: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_integer("in_features", in_features, 1)
        check_integer("out_features", out_features, 1)
        K = _near_root(in_features) if nblocks_in is None else nblocks_in
        J = _near_root(out_features) if nblocks_out is None else nblocks_out
        check_integer("nblocks_in", K, 1, in_features, most_is="in_features")
        check_integer("nblocks_out", J, 1, out_features, most_is="out_features")
        l, I = -(-in_features // K), -(-out_features // J)
        check_integer("rank", rank, 1, min(I, l), most_is="min(I, l)")
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.L = nn.Parameter(torch.empty(J, I, K * rank, device=device, dtype=dtype))
        self.R = nn.Parameter(torch.empty(K, J * rank, l, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters from the global generator."""
        variance = 1 / math.sqrt(3 * self.rank * self.in_features)  # of each factor: q times the square is 1/(3·in)
        share = self.L.shape[2] / self.R.shape[2]  # K·q terms in a sum of L, l in one of R: equal gains
        for factor, power in ((self.L, -0.5), (self.R, 0.5)):
            bound = math.sqrt(3 * variance * share**power)
            factor.uniform_(-bound, bound)
        if self.bias is not None:
            self.bias.uniform_(-1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """Return ``x @ weight_dense().mT + bias``."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., {self.in_features}) as in_features says")
        padding = self.R.shape[0] * self.R.shape[2] - self.in_features
        y = monarch_matmul(F.pad(x, (0, padding)) if padding else x, self.L, self.R)[..., : self.out_features]
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def weight_dense(self) -> Float[Tensor, "out in"]:
        """Return the weight ``(out_features, in_features)``, as ``nn.Linear`` stores it; differentiable."""
        return monarch_dense(self.L, self.R)[: self.out_features, : self.in_features]

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, nblocks_in: int | None = None, nblocks_out: int | None = None, *, rank: int = 1
    ) -> MonarchLinear:
        """Return the layer whose weight is nearest to that of ``linear``, with a copy of its bias.

        Padding costs nothing: a slice with zero rows and columns is nearest to one that has them too.

        Args:
            linear: stays as it is.
            nblocks_in: as for the class.
            nblocks_out: as for the class.
            rank: as for the class.

        Raises:
            TypeError: another module.
            ValueError: as for the class.

        >>> layer = nn.Linear(6, 4)
        >>> near = MonarchLinear.from_linear(layer, 2, 2, rank=2)
        >>> torch.allclose(near.weight_dense(), layer.weight, atol=1e-6)
        True
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear: got {type(linear).__name__}, expected nn.Linear")
        W = linear.weight.detach()
        layer = cls._like(linear, nblocks_in, nblocks_out, rank)
        (J, I, _), (K, _, l) = layer.L.shape, layer.R.shape
        padded = F.pad(W, (0, K * l - W.shape[1], 0, I * J - W.shape[0]))
        with torch.no_grad():
            for factor, value in zip((layer.L, layer.R), monarch_project(padded, K, J, rank=rank)):
                factor.copy_(value)
            if linear.bias is not None and layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer

    def to_linear(self) -> nn.Linear:
        """Return an ``nn.Linear`` that computes the same.

        >>> MonarchLinear(9, 6).to_linear()
        Linear(in_features=9, out_features=6, bias=True)
        """
        options = {"device": self.L.device, "dtype": self.L.dtype}
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, **options)
        with torch.no_grad():
            linear.weight.copy_(self.weight_dense())
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        blocks = f"nblocks_in={self.R.shape[0]}, nblocks_out={self.L.shape[0]}, rank={self.rank}"
        return f"{self.in_features}, {self.out_features}, {blocks}, bias={self.bias is not None}"

    @classmethod
    def _like(cls, linear: nn.Linear, nblocks_in: int | None, nblocks_out: int | None, rank: int) -> MonarchLinear:
        W = linear.weight
        options = {"rank": rank, "bias": linear.bias is not None, "device": W.device, "dtype": W.dtype}
        layer = cls(linear.in_features, linear.out_features, nblocks_in, nblocks_out, **options)
        return layer.train(linear.training)


def convert_to_monarch(
    model: nn.Module,
    *,
    targets: Sequence[str] | None = None,
    nblocks: int | None = None,
    rank: int = 1,
    project: bool = True,
) -> list[str]:
    """Replace the ``nn.Linear`` layers inside a model by Monarch layers, in place.

    Args:
        model: its parameters change, so that an optimizer must be made afterwards.
        targets: names of layers, whole or the last dotted part; default all.
        nblocks: K and J of all of them; default chosen for each shape.
        rank: q.
        project: start from the nearest Monarch matrix; otherwise from a fresh initialisation.

    Returns:
        The names of the replaced layers. A layer in two places stays one layer.

    Raises:
        TypeError: a size that is no integer.
        ValueError: ``targets`` has a name that fits no layer; no layer at all; a weight that another module holds
            too; a size that a layer does not allow. Then the model is unchanged.

    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> convert_to_monarch(model, targets=["0"])
    ['0']
    """
    linears = {n: m for n, m in model.named_modules(remove_duplicate=False) if n and type(m) is nn.Linear}
    chosen = _chosen(linears, targets)
    replaced: dict[nn.Linear, MonarchLinear] = {}
    for name, linear in chosen.items():
        holders = [n for n, m in model.named_modules() if m is not linear and linear.weight in set(m.parameters(False))]
        if holders:
            raise ValueError(f"targets: got {name!r}, whose weight {holders[0]!r} holds too, expected one without")
        if linear not in replaced:
            make = MonarchLinear.from_linear if project else _fresh
            replaced[linear] = make(linear, nblocks, nblocks, rank=rank)
    for name, linear in chosen.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, replaced[linear])
    return list(chosen)


def _fresh(linear: nn.Linear, nblocks_in: int | None, nblocks_out: int | None, *, rank: int) -> MonarchLinear:
    return MonarchLinear._like(linear, nblocks_in, nblocks_out, rank)


def _chosen(linears: dict[str, nn.Linear], targets: Sequence[str] | None) -> dict[str, nn.Linear]:
    if not linears:
        raise ValueError("model: got no nn.Linear inside, expected at least one")
    if targets is None:
        return linears
    wanted = [targets] if isinstance(targets, str) else list(targets)
    fits = {w: [n for n in linears if n == w or n.endswith(f".{w}")] for w in wanted}
    unknown = [w for w, names in fits.items() if not names]
    if unknown or not wanted:
        raise ValueError(f"targets: got {unknown or wanted}, expected names of some of {list(linears)}")
    names = {n for found in fits.values() for n in found}
    return {n: m for n, m in linears.items() if n in names}


def _near_root(n: int) -> int:
    """The divisor of n nearest to √n on a logarithmic scale, if it is within a factor 2; or else √n rounded."""
    divisor = min((b for b in range(1, n + 1) if n % b == 0), key=lambda b: abs(math.log(b * b / n)))
    return divisor if n <= 4 * divisor**2 <= 16 * n else round(math.sqrt(n))
