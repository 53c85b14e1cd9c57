#!/usr/bin/env bash
# sympy 1.14.0: srepr writes the assumptions of a Symbol but not those of an undefined Function, so what is read back is
# another function. Expected from memory: eval(srepr(e)) == e, as the docstring of srepr says. Seen: for Function("p",
# positive=True) the text is Function('p')(…), the two differ, and log(p(x)**2) no longer expands to 2*log(p(x)).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "sympy==1.14.0" "mpmath==1.3.0"
"$folder/venv/bin/python" - <<'PYTHON'
from sympy import *

x = Symbol("x", positive=True)
p = Function("p", positive=True)
assert eval(srepr(x)) == x
text = srepr(p(x))
again = eval(text)
print("written:", text)
print("read back to the same:", again == p(x), "; positive:", p(x).is_positive, "then", again.is_positive)
before, after = (expand_log(log(f**2)) for f in (p(x), again))
print("log of its square:", before, "then", after)
assert text == "Function('p')(Symbol('x', positive=True))"
assert again != p(x) and p(x).is_positive and again.is_positive is None
assert before == 2 * log(p(x)) and after == log(again**2)
PYTHON
