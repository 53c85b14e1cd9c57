#!/usr/bin/env bash
# torch 2.13.0, CPU: torch.linalg.matrix_exp in float32 of the generator of a two-state process.
# Expected from memory: an error of a few units of float32's rounding, 1e-7. Seen: up to several 1e-5, for rates just
# below those at which a longer series is taken; float64 and SciPy's float32 expm do not show it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.2.6" "scipy==1.15.3"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch
from scipy.linalg import expm

errors = {}
for c in (0.1, 0.3, 0.5, 0.57, 0.6, 1.0, 2.0):
    A = np.array([[-c, c], [0.0, 0.0]], dtype=np.float32)
    gone = np.exp(-float(A[0, 1]))
    exact = np.array([[gone, 1 - gone], [0, 1]])
    ours = torch.linalg.matrix_exp(torch.from_numpy(A)).numpy()
    errors[c] = abs(ours - exact).max(), abs(expm(A) - exact).max()
    print(f"rate {c}: torch off by {errors[c][0]:.1e}, SciPy by {errors[c][1]:.1e}")
assert errors[0.57][0] > 1e-5
assert max(error for error, _ in (errors[0.6], errors[1.0])) < 1e-6
assert max(error for _, error in errors.values()) < 1e-6
PYTHON
