#!/usr/bin/env bash
# sympy 1.14.0: simplify imports sympy.physics.units, whatever it simplifies. Expected from memory: a bundle of SymPy for a
# browser or a small container may leave sympy.physics out, as `import sympy` never loads it. Seen: without that folder
# `import sympy` works, expand, diff and integrate work, and simplify of sin(x)**2 + cos(x)**2 is a ModuleNotFoundError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "sympy==1.14.0" "mpmath==1.3.0"
rm -r "$("$folder/venv/bin/python" -c 'import sympy, os; print(os.path.dirname(sympy.__file__))')/physics"
"$folder/venv/bin/python" - <<'PYTHON'
import sympy as sp

x = sp.Symbol("x")
assert sp.expand((x + 1) ** 2) == x**2 + 2 * x + 1
assert sp.integrate(sp.diff(sp.sin(x) * sp.exp(x), x), x) == sp.sin(x) * sp.exp(x)
try:
    sp.simplify(sp.sin(x) ** 2 + sp.cos(x) ** 2)
except ModuleNotFoundError as error:
    print("simplify:", error)
    assert "sympy.physics" in str(error)
else:
    raise SystemExit("simplify works without sympy.physics now")
PYTHON
