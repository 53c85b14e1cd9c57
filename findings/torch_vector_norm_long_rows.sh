#!/usr/bin/env bash
# torch 2.13.0, CPU: torch.linalg.vector_norm adds the squares of a long float32 row one after the other in float32, while
# sum() adds pairwise. Expected from memory: a norm is as good as the root of the sum of squares. Seen: equal numbers 0.001,
# relative error 6e-4 for a million and 1e-3 for ten million, against less than 1e-6. dtype=torch.float64 cures it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import torch

torch.set_num_threads(1)
for n, at_least in ((10**6, 3e-4), (10**7, 5e-4)):
    x = torch.full((n,), 0.001)
    exact = x.double().square().sum().sqrt().item()
    errors = {
        "vector_norm": torch.linalg.vector_norm(x).item() / exact - 1,
        "root of the sum of squares": x.square().sum().sqrt().item() / exact - 1,
        "vector_norm, dtype=float64": torch.linalg.vector_norm(x, dtype=torch.float64).item() / exact - 1,
    }
    print(n, {name: f"{error:+.1e}" for name, error in errors.items()})
    assert abs(errors["vector_norm"]) > at_least, "the norm of a long row is better than it was"
    assert abs(errors["root of the sum of squares"]) < 1e-6
    assert abs(errors["vector_norm, dtype=float64"]) < 1e-10
PYTHON
