#!/usr/bin/env bash
# sympy 1.14.0: a Product over no factor, which is 1, answers that it is nonpositive. What follows from it depends on the order
# in which assumptions are asked, which SymPy shuffles: `Eq(Product(1 - n/j, (j, 1, 0)), 1)` is False for some of many equal
# attempts, `Product(1 - n/j, (j, 1, 0)) < 1` True. Expected from memory: an empty product is positive, and equal questions
# have equal answers. Seen, of 300 attempts each: the equation False for about one in twelve, the order True for one in seven.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "sympy==1.14.0"
"$folder/venv/bin/python" - <<'PYTHON'
import sympy as sp
from sympy.core.cache import clear_cache

n, j = sp.symbols("n j", integer=True, positive=True)
attempts, unequal, below = 300, 0, 0
for _ in range(attempts):
    clear_cache()
    unequal += sp.Eq(sp.Product(1 - n / j, (j, 1, 0)), 1) == False
    clear_cache()
    below += (sp.Product(1 - n / j, (j, 1, 0)) < 1) == True
empty = sp.Product(1 - n / j, (j, 1, 0))
print(f"value {empty.doit()}; nonpositive: {empty.is_extended_nonpositive}; "
      f"of {attempts}: not equal to 1 {unequal}, below 1 {below}")
assert empty.doit() == 1
assert empty.is_extended_nonpositive is True
assert 0 < unequal < attempts, "some of the equal attempts answer False"
assert 0 < below < attempts, "some of the equal attempts answer True"
PYTHON
