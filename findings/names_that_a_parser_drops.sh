#!/usr/bin/env bash
# math-verify: the index of I_1, the prime of y', the derivative dv/dt and the name of \gcd(m,n) are dropped in silence.
#
# Versions: math-verify 0.9.0, latex2sympy2-extended 1.11.0, antlr4-python3-runtime 4.13.2, sympy 1.14.0.
# Guess:    what the parser does not know makes it fail, so that a pair counts as wrong or as not compared.
# Behaviour: it goes on without it. I_1 and I_0 are both the imaginary unit, y' is y, \coth x is cot(h x), the gcd of
#           two unknowns is 1 (of polynomials), g^{-1}(x) is 1/g(x), and dv/dt is zero where two equations are compared.
# Why it matters: wrong answers earn the reward of correct ones: bv=f for m dv/dt + bv = f. Check that every name,
#           index, prime and function of the text is in what was parsed, or use a parser that refuses.
# Output seen:
#   I_1 = I; I_0 = I; y' = y; \coth x = cot(h*x); \gcd(m,n) = 1; g^{-1}(x) = 1/g(x)
#   accepted: bv=f for m\frac{dv}{dt}+bv=f True; \frac{I_1}{2} for \frac{I_0}{2} True; m+n-1 for m+n-\gcd(m,n) True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet math-verify==0.9.0 latex2sympy2-extended==1.11.0 \
    antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
from latex2sympy2_extended import latex2sympy
from math_verify import parse, verify

texts = ("I_1", "I_0", "y'", r"\coth x", r"\gcd(m,n)", "g^{-1}(x)")
print("; ".join(f"{text} = {latex2sympy(text)}" for text in texts))
pairs = (
    ("bv=f", r"m\frac{dv}{dt}+bv=f"),
    (r"\frac{I_1}{2}", r"\frac{I_0}{2}"),
    ("m+n-1", r"m+n-\gcd(m,n)"),
)
accepted = (f"{text} for {gold} {verify(parse(f'${gold}$'), parse(f'${text}$'))}" for text, gold in pairs)
print("accepted: " + "; ".join(accepted))
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
I_1 = I; I_0 = I; y' = y; \coth x = cot(h*x); \gcd(m,n) = 1; g^{-1}(x) = 1/g(x)
accepted: bv=f for m\frac{dv}{dt}+bv=f True; \frac{I_1}{2} for \frac{I_0}{2} True; m+n-1 for m+n-\gcd(m,n) True
SEEN
