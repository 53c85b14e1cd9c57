#!/usr/bin/env bash
# peft 0.21.2: two corners of LoRA that do not do what their names say.
# Expected from memory: create_loraplus_optimizer(..., weight_decay=0.1) decays the factors, and only factors B get the
# fast rate; init_lora_weights="orthogonal" makes two orthonormal factors of rank r. Seen: the decay is 0 everywhere, a
# trainable bias gets 16 times the rate, and the two factors have rank r/2 each with product 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "peft==0.21.2" "torch==2.13.0" "transformers==5.20.2" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer


def adapted(**options):
    return get_peft_model(torch.nn.Sequential(torch.nn.Linear(32, 24)), LoraConfig(target_modules=["0"], **options))


model = adapted(r=4, bias="all")
optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, weight_decay=0.1)
seen = {
    name.split(".")[-2 if "lora" not in name else -3] + "." + ("A" if "lora_A" in name else "B" if "lora_B" in name else "bias"): (
        group["lr"],
        group["weight_decay"],
    )
    for group in optimizer.param_groups
    for p in group["params"]
    for name, q in model.named_parameters()
    if p is q
}
for name, (rate, decay) in seen.items():
    print(f"{name}: rate {rate:g}, decay {decay:g}")
assert {decay for _, decay in seen.values()} == {0.0}
assert [rate for name, (rate, _) in seen.items() if name.endswith("bias")] == [1.6e-2]

torch.manual_seed(0)
layer = adapted(r=8, init_lora_weights="orthogonal").base_model.model[0]
A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
ranks = [int(torch.linalg.matrix_rank(M, rtol=1e-5)) for M in (A, B)]
print(f"orthogonal start, r = 8: ranks of A and B {ranks}, largest entry of BA {(B @ A).abs().max().item():.0e}")
assert ranks == [4, 4]
assert (B @ A).abs().max() < 1e-6
PYTHON
