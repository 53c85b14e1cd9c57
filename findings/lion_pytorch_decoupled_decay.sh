#!/usr/bin/env bash
# lion-pytorch 0.2.5: decoupled_weight_decay=True divides the decay by the learning rate given to the constructor, then multiplies
# it by the rate of the group. Expected from memory: with decoupled decay the weight shrinks by the decay itself, whatever the
# rate. Seen: a group with rate 1e-2 under a constructor with 1e-4 is multiplied by 1 - 100 * 0.1 = -9 in one step.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "lion-pytorch==0.2.5" "torch==2.13.0" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from lion_pytorch import Lion


def after_one_step(group_rate):
    weight = torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [weight], "lr": group_rate}]
    optimizer = Lion(groups, lr=1e-4, weight_decay=0.1, decoupled_weight_decay=True)
    weight.grad = torch.zeros(1)
    optimizer.step()
    return weight.item()


same, other = after_one_step(1e-4), after_one_step(1e-2)
print(f"rate of the group as the constructor's: {same:.4f}; a hundred times larger: {other:.4f}")
assert abs(same - 0.9) < 1e-6
assert abs(other + 9.0) < 1e-4, "the decay follows the group's rate"
PYTHON
