"""gan_flow beside loops by hand: a step of many particles, a round of training in both modes.

Run: python -m benchmarks.generative.bench_gan_flow [--save]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Report
from kexue_lib.generative.gan_flow import GANFlowTrainer, flow_velocity, particle_flow
from kexue_lib.mlp import mlp

PARTICLES, BATCH, WIDTH = 10_000, 256, 64


def networks() -> tuple[nn.Module, nn.Module]:
    return (mlp([2, WIDTH, WIDTH, n], activation=nn.SiLU, generator=torch.Generator().manual_seed(n)) for n in (2, 1))


def data(n: int) -> Tensor:
    return torch.randn(n, 2)


def round_by_hand(mode: str, d_steps: int, g_steps: int):
    """One round with PyTorch's losses, as tutorials write it: two passes of the discriminator, all gradients."""
    generator, net = networks()
    opt_g, opt_d = (torch.optim.Adam(m.parameters(), 1e-3, (0.5, 0.99), fused=True) for m in (generator, net))
    bce, real, fake = F.binary_cross_entropy_with_logits, torch.ones(BATCH, 1), torch.zeros(BATCH, 1)

    def step() -> None:
        for _ in range(d_steps):
            opt_d.zero_grad()
            samples = generator(torch.randn(BATCH, 2)).detach()
            (bce(net(data(BATCH)), real) + bce(net(samples), fake)).backward()
            opt_d.step()
        latents, target = torch.randn(BATCH, 2), None
        for _ in range(g_steps):
            opt_g.zero_grad()
            x = generator(latents)
            if mode == "adversarial":
                bce(net(x), real).backward()
            else:
                if target is None:
                    point = x.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(F.logsigmoid(net(point)).sum(), point)
                    target = point.detach() + 0.05 * slope
                F.mse_loss(x, target, reduction="sum").div(BATCH).backward()
            opt_g.step()

    return step


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    report = Report("Flows of particles and rounds of a GAN")
    _, net = networks()
    x = torch.randn(PARTICLES, 2)

    def bare() -> None:
        point = x.clone().requires_grad_()
        torch.autograd.grad(net(point).sum(), point)

    report.compare(
        f"One step of {PARTICLES} particles, a discriminator of width {WIDTH}, float32",
        {
            "particle_flow": lambda: particle_flow(x, lambda x, _: flow_velocity(net, x, "non_saturating"), 0.05, 1),
            "forward and backward of the discriminator alone": bare,
        },
        baseline="particle_flow",
    )
    for g_steps in (1, 20):
        ways = {}
        for mode in ("adversarial", "regression"):
            options = {"latent_dim": 2, "mode": mode, "d_steps": 3, "g_steps": g_steps}
            trainer = GANFlowTrainer(*networks(), data, **options)
            ways[f"GANFlowTrainer, {mode}"] = trainer.step
            ways[f"loop by hand, {mode}"] = round_by_hand(mode, 3, g_steps)
        title = f"A round: 3 steps of the discriminator, {g_steps} of the generator, batch {BATCH}, float32"
        report.compare(title, ways, baseline="GANFlowTrainer, adversarial", rounds=61)
    report.finish("generative/gan_flow")


if __name__ == "__main__":
    main()
