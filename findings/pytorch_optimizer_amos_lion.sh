#!/usr/bin/env bash
# pytorch-optimizer 4.1.0: Amos(extra_l2=...) makes weights grow, and Lion(maximize=True) changes the gradients it is given.
# Expected from memory: an extra L2 decay shrinks a weight (the authors' rule subtracts gamma / 2 + lambda of it), and a step
# reads gradients. Seen: a weight of 1 without gradient becomes 1.05 at lambda = 0.1, and two steps up on one gradient cancel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "pytorch-optimizer==4.1.0" "torch==2.13.0" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from pytorch_optimizer import Amos, Lion

weight = torch.nn.Parameter(torch.ones(1))
weight.grad = torch.zeros(1)
Amos([weight], lr=1e-3, extra_l2=0.1).step()
print(f"Amos, extra_l2 = 0.1, no gradient: 1 becomes {weight.item():.4f}")
assert abs(weight.item() - 1.05) < 1e-4

climber = torch.nn.Parameter(torch.zeros(1))
climber.grad = torch.ones(1)
optimizer = Lion([climber], lr=0.1, betas=(0.0, 0.0), weight_decay=0.0, maximize=True)
optimizer.step()
first, gradient = climber.item(), climber.grad.item()
optimizer.step()
print(f"Lion, maximize, gradient 1: after one step {first:.2f}, stored gradient {gradient:.0f}, after two {climber.item():.2f}")
assert (round(first, 2), gradient, round(climber.item(), 2)) == (0.1, -1.0, 0.0)
PYTHON
