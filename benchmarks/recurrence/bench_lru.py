"""Linear recurrent units beside the loop, a convolution, PyTorch's RNNs, and one token beside a growing KV cache.

Run: python -m benchmarks.recurrence.bench_lru [--save]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Report
from kexue_lib.recurrence.lru import LRU, LRUBlock, lru_eigenvalues, lru_init, rwkv_mix
from kexue_lib.recurrence.scan import linear_scan

SHAPES = [(1, 4096, 64), (8, 1024, 256)]


def unbound(lam: Tensor, u: Tensor) -> Tensor:
    """The plain loop."""
    x, out = torch.zeros_like(u[..., 0, :]), []
    for u_t in u.unbind(-2):
        x = lam * x + u_t
        out.append(x)
    return torch.stack(out, -2)


def convolved(lam: Tensor, u: Tensor) -> Tensor:
    """The kernel λ^k written out, and FFTs of twice the length."""
    length = u.shape[-2]
    kernel = torch.exp(torch.arange(length)[:, None] * lam.log())
    product = torch.fft.fft(kernel, 2 * length, dim=-2) * torch.fft.fft(u, 2 * length, dim=-2)
    return torch.fft.ifft(product, dim=-2)[..., :length, :]


def trained(layer: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """Forward and backward, by the inputs and by parameters."""
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    wanted = (*inputs, *(layer.parameters() if isinstance(layer, nn.Module) else ()))

    def step() -> None:
        out = layer(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        torch.autograd.grad(out, wanted, grad_outputs=torch.ones_like(out))

    return step


class AttentionBlock(nn.Module):
    """Eight heads, the block's own gate, and a cache that is written in place."""

    def __init__(self, d_model: int, length: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(d_model), nn.Linear(d_model, 3 * d_model)
        self.out, self.mix = nn.Linear(d_model, d_model), nn.Linear(d_model, 2 * d_model)
        self.cache = torch.randn(2, 1, 8, length + 1, d_model // 8)

    def step(self, u: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(u)).view(1, 3, 8, 1, -1).unbind(1)
        self.cache[0, :, :, -1:], self.cache[1, :, :, -1:] = k, v
        y = F.scaled_dot_product_attention(q, *self.cache).flatten()[None]
        return u + F.glu(self.mix(F.gelu(self.out(y))), -1)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    report = Report("Linear recurrent units")
    for batch, length, width in SHAPES:
        lam = lru_eigenvalues(*lru_init(width)[:2])
        u = torch.randn(batch, length, width, dtype=torch.complex64)
        report.compare(
            f"The complex scan, forward and backward, batch {batch}, {length} steps, {width} states",
            {
                "linear_scan": trained(linear_scan, lam, u),
                "loop": trained(unbound, lam, u),
                "FFT convolution": trained(convolved, lam, u),
            },
            baseline="linear_scan",
            rounds=9,
        )
    u = torch.randn(8, 1024, 128)
    w, bonus = torch.rand(128) + 0.1, torch.randn(128)
    report.compare(
        "Layers, forward and backward, batch 8, 1024 steps, 128 channels",
        {
            "LRU, 128 complex states": trained(LRU(128, 128), u),
            "LRU, real=True, 256 states": trained(LRU(128, 256, real=True), u),
            "rwkv_mix": trained(lambda k, v: rwkv_mix(w, bonus, k, v), u, u),
            "torch.nn.RNN, 256 units": trained(nn.RNN(128, 256, batch_first=True), u),
            "torch.nn.GRU, 256 units": trained(nn.GRU(128, 256, batch_first=True), u),
        },
        baseline="LRU, 128 complex states",
        rounds=9,
    )
    with torch.no_grad():
        block, token = LRUBlock(256, 256), torch.randn(1, 256)
        state = block.initial_state(1)
        candidates = {"LRUBlock.step": lambda: block.step(token, state)}
        for position in (128, 2048, 32768):
            attention = AttentionBlock(256, position)
            candidates[f"attention, cache of {position}"] = lambda attention=attention: attention.step(token)
        report.compare("One token, 256 channels", candidates, baseline="LRUBlock.step", rounds=51)
    report.finish("recurrence/lru")


if __name__ == "__main__":
    main()
