#!/usr/bin/env bash
# scipy 1.15.3: cont2discrete(..., "bilinear") returns another C and D. Expected from memory: the bilinear rule of HiPPO and S4,
# A' = (I - hA/2)^-1 (I + hA/2), B' = (I - hA/2)^-1 hB, with C and D as they were. Seen: for x' = -x + u, y = x and h = 1 SciPy
# has (1/3, 2/3, 2/3, 1/3) where that rule has (1/3, 2/3, 1, 0): it samples the state between the steps. The transfer functions
# differ by half a step: SciPy's is H((2/h)(z - 1)/(z + 1)), the other one is the same times 2/(z + 1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "scipy==1.15.3" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from scipy.signal import cont2discrete

one = np.ones((1, 1))
A, B, C, D, _ = (float(np.squeeze(m)) for m in cont2discrete((-one, one, one, 0 * one), 1.0, method="bilinear"))
print("A, B, C, D:", A, B, C, D)
assert np.allclose((A, B, C, D), (1 / 3, 2 / 3, 2 / 3, 1 / 3)), "C and D are kept"
z = np.exp(0.7j)
s = 2 * (z - 1) / (z + 1)
scipys, papers = C * B / (z - A) + D, B / (z - A)
print("transfer function at z = exp(0.7i): scipy", scipys, "H(s)", 1 / (s + 1), "C and D kept", papers)
assert np.isclose(scipys, 1 / (s + 1))
assert np.isclose(papers, 2 / (z + 1) / (s + 1))
PYTHON
