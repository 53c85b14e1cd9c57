#!/usr/bin/env bash
# torch 2.13.0, CPU: the Jacobian of torch.linalg.solve by vmap(jacfwd(...)), the usual way to a batch of Jacobians.
# Expected from memory: the same numbers as vmap(jacrev(...)) or as jacfwd row by row. Seen: values off by far more than
# the Jacobian itself, without an error or a warning; jacfwd of a single matrix and vmap(jacrev(...)) are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.func import jacfwd, jacrev, vmap

torch.manual_seed(0)
A = torch.randn(3, 2, 2, dtype=torch.float64) + 3 * torch.eye(2, dtype=torch.float64)
b = torch.randn(3, 2, dtype=torch.float64)
# dx = -inv(A) dA x
inverse, x = torch.linalg.inv(A), torch.linalg.solve(A, b)
exact = -torch.einsum("nij,nk->nijk", inverse, x)
ways = {
    "vmap(jacfwd)": vmap(jacfwd(torch.linalg.solve))(A, b),
    "vmap(jacrev)": vmap(jacrev(torch.linalg.solve))(A, b),
    "jacfwd, one by one": torch.stack([jacfwd(torch.linalg.solve)(*pair) for pair in zip(A, b)]),
    "vmap(jacfwd) through inv": vmap(jacfwd(lambda A, b: torch.linalg.inv(A) @ b))(A, b),
}
off = {name: (J - exact).abs().max().item() for name, J in ways.items()}
print(f"largest entry of the Jacobian {exact.abs().max().item():.2f}")
for name, error in off.items():
    print(f"{name}: off by {error:.1e}")
assert off.pop("vmap(jacfwd)") > 1
assert max(off.values()) < 1e-12
PYTHON
