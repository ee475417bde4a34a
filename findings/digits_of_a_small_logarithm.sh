#!/usr/bin/env bash
# sympy: evalf says that ln(1 + 10^-42) is 0, though ten digits were asked for.
#
# Versions: sympy 1.14.0, mpmath 1.3.0.
# Guess:    evalf(10) gives ten correct digits, 1.000000000e-42: sympy raises its working precision until it has them,
#           as it does for exp(10^-42) - 1 and for sqrt(10^60 + 1) - 10^30.
# Behaviour: the answer is the exact integer 0, not a float with a note of its uncertainty, for 10 and for 30 digits and
#           with maxn=1000; fifty digits are right. ln(1 - 10^-42) is right with 10 digits.
# Why it matters: who tells two constants apart by their digits takes ln(1 + 10^-42) for ln(1 + 10^-43), and ln of the
#           one over ln of the other has no value. Evaluate again with more digits wherever evalf returns 0.
# Output seen:
#   ln(1+10^-42): 10 digits 0 (Integer), 30 digits 0, maxn=1000 0, 50 digits 1.0e-42
#   ln(1-10^-42): -1.000000000e-42; exp(10^-42)-1: 1.000000000e-42; sqrt(10^60+1)-10^30: 5.000000000e-31
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet sympy==1.14.0 mpmath==1.3.0
"$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
from sympy import Rational, exp, log, sqrt

small = Rational(1, 10**42)
larger, smaller = log(1 + small), log(1 - small)
zero = larger.evalf(10)
kind = "Integer" if zero.is_Integer else type(zero).__name__
print(f"ln(1+10^-42): 10 digits {zero} ({kind}), 30 digits {larger.evalf(30)}, ", end="")
print(f"maxn=1000 {larger.evalf(10, maxn=1000)}, 50 digits {larger.evalf(50).round(44):.1e}")
print(f"ln(1-10^-42): {smaller.evalf(10)!s}; exp(10^-42)-1: {(exp(small) - 1).evalf(10)!s}; ", end="")
print(f"sqrt(10^60+1)-10^30: {(sqrt(10**60 + 1) - 10**30).evalf(10)!s}")
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
ln(1+10^-42): 10 digits 0 (Integer), 30 digits 0, maxn=1000 0, 50 digits 1.0e-42
ln(1-10^-42): -1.000000000e-42; exp(10^-42)-1: 1.000000000e-42; sqrt(10^60+1)-10^30: 5.000000000e-31
SEEN
