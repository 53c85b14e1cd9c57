#!/usr/bin/env bash
# sympy 1.14.0: the square root of some large integers and rationals is a ValueError. Expected from memory: sqrt of an
# exact number always gives a number. Seen: the root asks factorint for square factors with a limit, gets a composite
# cofactor, and the cache of prime factors refuses it ("... is not a prime factor of ..."). After a full factorisation of
# the same number in the same process the same root is computed. Code that puts rationals into roots has to expect it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "sympy==1.14.0" "mpmath==1.3.0"
"$folder/venv/bin/python" - <<'PYTHON'
import sympy as sp

number = (10**26 - 99) * (10**26 + 99)  # two factors without small primes
try:
    raise SystemExit(f"sqrt gives {sp.sqrt(number)} now")
except ValueError as error:
    print("sqrt:", error)
    assert "is not a prime factor of" in str(error)
sp.factorint(number)
print("after factorint:", sp.sqrt(number))
assert sp.sqrt(number) ** 2 == number
PYTHON
