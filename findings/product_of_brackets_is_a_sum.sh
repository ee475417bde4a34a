#!/usr/bin/env bash
# math-verify: 3(2) is 5, and (2)(3) is 5.
#
# Versions: math-verify 0.9.0, latex2sympy2-extended 1.11.0, antlr4-python3-runtime 4.13.2, sympy 1.14.0.
# Guess:    two numbers next to each other, one of them in brackets, are a product, as everywhere in mathematics.
# Behaviour: two rational numbers side by side are added, as the parts of a mixed number 2 1/2 are, whatever brackets
#           are around them; so are two binomial coefficients. With a letter in it the same text is a product.
# Why it matters: a reward by math-verify calls the right answer 3(2) for 6 wrong, and for 5 correct. Put \cdot between
#           numbers before parsing.
# Output seen:
#   3(2) = 5; (2)(3) = 5; \frac{4}{2}(3) = 5; \binom{4}{2}\binom{3}{1} = 9; 3(x) = 3*x
#   3(2) for 6: False; 3(2) for 5: True; \binom{4}{2}\binom{3}{1} for 18: False; for 9: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet math-verify==0.9.0 latex2sympy2-extended==1.11.0 \
    antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
from latex2sympy2_extended import latex2sympy
from math_verify import parse, verify

texts = ("3(2)", "(2)(3)", r"\frac{4}{2}(3)", r"\binom{4}{2}\binom{3}{1}", "3(x)")
print("; ".join(f"{text} = {latex2sympy(text)}" for text in texts))


def equal(prediction: str, gold: str) -> bool:
    return verify(parse(f"${gold}$"), parse(f"${prediction}$"))


binomials = r"\binom{4}{2}\binom{3}{1}"
print(f"3(2) for 6: {equal('3(2)', '6')}; 3(2) for 5: {equal('3(2)', '5')}; ", end="")
print(f"{binomials} for 18: {equal(binomials, '18')}; for 9: {equal(binomials, '9')}")
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
3(2) = 5; (2)(3) = 5; \frac{4}{2}(3) = 5; \binom{4}{2}\binom{3}{1} = 9; 3(x) = 3*x
3(2) for 6: False; 3(2) for 5: True; \binom{4}{2}\binom{3}{1} for 18: False; for 9: True
SEEN
