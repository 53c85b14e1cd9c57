"""The task of the LoRA chapters: a network trained on upright digits, fine-tuned on the same digits turned by 90°.

Small enough for hundreds of runs in a minute or two, and hard for a low-rank update: the network begins at chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from kexue_lib._arguments import check_integer
from kexue_lib.data import digits, minibatches
from kexue_lib.mlp import mlp

__all__ = ["FineTuned", "Images", "fine_tune", "pretrained", "task"]

_TEST_SIZE = 797  # of 1797 images; the other 1000 train
_EPOCHS, _BATCH, _RATE = 30, 50, 2e-3  # of the training on upright digits


class Images(NamedTuple):
    """Digits as rows of pixels, ``x (k, 64)`` float32 in [0, 1], and what they show, ``y (k,)`` int64 in 0…9.

    >>> Images(torch.zeros(2, 64), torch.tensor([0, 1])).y.tolist()
    [0, 1]
    """

    x: Float[Tensor, "k 64"]
    y: Int64[Tensor, " k"]


class FineTuned(NamedTuple):
    """What :func:`fine_tune` returns.

    ``losses (steps,)`` is the loss of each batch before its step, ``train_loss`` the mean cross-entropy over the 1000
    training images afterwards (nats), ``test_accuracy`` the share of the 797 test images that are named correctly.
    """

    losses: Float[Tensor, " steps"]
    train_loss: float
    test_accuracy: float


def task(rotated: bool = True) -> tuple[Images, Images]:
    """Return 1000 digits to train on and 797 to test with, turned by 90° or upright.

    Args:
        rotated: turn every image by 90° counter-clockwise.

    Returns:
        ``(train, test)``, each with ``x (k, 64)`` float32 and ``y (k,)`` int64; the same split for both values.

    >>> train, test = task()
    >>> train.x.shape, test.y.shape
    (torch.Size([1000, 64]), torch.Size([797]))
    """
    data = digits(test_size=_TEST_SIZE)
    train, test = Images(data.x_train, data.y_train), Images(data.x_test, data.y_test)
    return (_turned(train), _turned(test)) if rotated else (train, test)


def pretrained(width: int = 256) -> nn.Sequential:
    """Return an MLP 64-width-width-10 (ReLU) trained on the upright digits, the same one at every call.

    AdamW at rate 2e-3, 600 steps of 50 images, seed 0; about one second for ``width=256`` on one core.

    Args:
        width: of both hidden layers.

    Returns:
        The network; all its parameters require gradients.

    Raises:
        TypeError: ``width`` is no integer.
        ValueError: ``width`` is not positive.
    """
    from kexue_lib.training import fit  # needs the notebook extra, the rest of the part does not

    check_integer("width", width, 1)
    train, _ = task(rotated=False)
    model = mlp([64, width, width, 10], generator=torch.Generator().manual_seed(0))
    steps = _EPOCHS * len(train.y) // _BATCH
    fit(
        model,
        _cross_entropy,
        minibatches(*train, batch_size=_BATCH),
        optimizer=lambda p: AdamW(p, lr=_RATE),
        steps=steps,
        log_every=steps,
        device="cpu",  # a fixed starting point: the GPU's sums are in another order
        progress=False,
    )
    return model


def fine_tune(
    model: nn.Module,
    optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer],
    *,
    steps: int = 100,
    batch_size: int = 50,
    generator: torch.Generator | None = None,
) -> FineTuned:
    """Fine-tune a network on the turned digits and measure it.

    What is trained is the caller's choice: the parameters that ``optimizer`` holds, for instance the factors after
    :func:`kexue_lib.matrices.lora_gradient.inject_lora`.

    Args:
        model: maps ``(k, 64)`` to the logits ``(k, 10)``; changed in place, on the device where its weights are.
        optimizer: holds the parameters to train; or makes an optimizer from those of ``model``.
        steps: optimizer steps.
        batch_size: images of a step, at most 1000; shuffled epochs without replacement.
        generator: source of the batches; equal generators give equal batches. Default: the global one.

    Returns:
        ``FineTuned(losses (steps,), train_loss, test_accuracy)``.

    Raises:
        ValueError: ``steps`` or ``batch_size`` outside its range.
        FloatingPointError: a loss is not finite (the rate is too high).
    """
    from kexue_lib.training import fit

    check_integer("batch_size", batch_size, 1)
    device = next(model.parameters()).device
    train, test = task()
    result = fit(
        model,
        _cross_entropy,
        minibatches(*train, batch_size=batch_size),
        optimizer=optimizer,
        steps=steps,
        seed=int(torch.randint(2**31 - 1, (), generator=generator)),
        device=device,
        progress=False,
    )
    was_training = model.training
    model.eval()
    with torch.no_grad():
        train_loss = _cross_entropy(model, (train.x.to(device), train.y.to(device))).item()
        right = model(test.x.to(device)).argmax(-1) == test.y.to(device)
    model.train(was_training)
    return FineTuned(result.history["loss"].float(), train_loss, right.float().mean().item())


def _turned(images: Images) -> Images:
    return Images(images.x.unflatten(-1, (8, 8)).rot90(1, (-2, -1)).flatten(-2).contiguous(), images.y)


def _cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])
