"""The most memory that an initialisation with LoRA-GA takes on top of the model: every mode, and peft.

Run by ``python -m kexue_lib.checkpoints.matrices.lora_ga_memory``, in half a minute; the bytes are counted by PyTorch's
profiler, the same on every run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from peft import LoraConfig, LoraGAConfig, get_peft_model
from peft.tuners.lora import preprocess_loraga
from torch import Tensor, nn

from kexue_lib.checkpoints import rounded, save
from kexue_lib.matrices.lora_ga import initialise_lora_ga

__all__ = ["main"]

RANK, WIDTH, LAYERS, ROWS = 8, 1024, 24, 32


def _network() -> nn.Sequential:
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*layers)


def _squared(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def _by_peft(model: nn.Module, batches: list[Tensor]) -> None:
    names = [str(2 * i) for i in range(LAYERS)]
    config = LoraConfig(r=RANK, target_modules=names, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())
    preprocess_loraga(model, config, lambda: [_squared(model, x).backward() for x in batches])
    get_peft_model(model, config)


def _peak_extra_bytes(run: Callable[[], object]) -> int:
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    inner: Any = profile.profiler
    return max(accumulate(e.nbytes() for e in inner.kineto_results.events() if e.name() == "[memory]"))


def main() -> None:
    """Measure and store the peaks, as shares of the model's bytes.

    One thread; half a minute.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model_bytes = sum(4 * p.numel() for p in _network().parameters())
    peaks: dict[str, dict[str, float]] = {}
    for count in (1, 4):
        batches = [torch.randn(ROWS, WIDTH) for _ in range(count)]
        runs: dict[str, Callable[[nn.Module], object]] = {
            mode: lambda model, mode=mode: initialise_lora_ga(model, _squared, batches, RANK, mode=mode)  # noqa: B023
            for mode in ("exact", "serial", "sketch")
        }
        runs["peft 0.21"] = lambda model: _by_peft(model, batches)  # noqa: B023
        for name, run in runs.items():
            model = _network()
            peaks.setdefault(name, {})[str(count)] = _peak_extra_bytes(lambda: run(model)) / model_bytes  # noqa: B023
            print(count, name, peaks[name][str(count)], flush=True)
    content = {"peaks": peaks, "model_megabytes": model_bytes / 1e6}
    made_with = {"seed": 0, "steps": 0, "rank": RANK, "width": WIDTH, "layers": LAYERS}
    save("matrices/lora_ga_memory", rounded(content), made_with=made_with)


if __name__ == "__main__":
    main()
