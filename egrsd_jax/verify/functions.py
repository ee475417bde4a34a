r"""The vocabulary of answers: commands of functions, Greek letters, accents and relations.

Shared by `normalise`, which turns every spelling of a function into its command, and by `syntax`, which refuses what is
not here.
"""

# Functions of one number, and the inverse that ^{-1} makes of them.
ONE_ARGUMENT: dict[str, str | None] = {
    "sin": "asin", "cos": "acos", "tan": "atan", "cot": "acot", "sec": "asec", "csc": "acsc",
    "sinh": "asinh", "cosh": "acosh", "tanh": "atanh", "coth": "acoth", "sech": "asech", "csch": "acsch",
    "asin": "sin", "acos": "cos", "atan": "tan", "acot": "cot", "asec": "sec", "acsc": "csc",
    "asinh": "sinh", "acosh": "cosh", "atanh": "tanh", "acoth": "coth", "asech": "sech", "acsch": "csch",
    "sign": None, "floor": None, "ceil": None, "abs": None, "re": None, "im": None, "arg": None, "erf": None,
}  # fmt: skip
SEVERAL_ARGUMENTS = {"max", "min", "gcd", "lcm"}

_LONG = ("sin", "cos", "tan", "cot", "sec", "csc")
FUNCTIONS: dict[str, str] = {
    **{rf"\{name}": name for name in (*_LONG, *(f"{name}h" for name in _LONG))},
    **{rf"\arc{name}": f"a{name}" for name in _LONG},
    **{rf"\{prefix}{name}h": f"a{name}h" for name in _LONG for prefix in ("ar", "arc")},
    r"\sgn": "sign", r"\Re": "re", r"\Im": "im", r"\arg": "arg", r"\erf": "erf",
    r"\floor": "floor", r"\ceil": "ceil", r"\abs": "abs",
    r"\max": "max", r"\min": "min", r"\gcd": "gcd", r"\lcm": "lcm",
}  # fmt: skip

# How else a function is called: Russian and German textbooks, Python, calculators.
SYNONYMS: dict[str, str] = {
    "tg": "tan", "ctg": "cot", "cotg": "cot", "cosec": "csc", "cotan": "cot",
    "arctg": "arctan", "arcctg": "arccot", "arccosec": "arccsc",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "acot": "arccot",
    "asinh": "arsinh", "acosh": "arcosh", "atanh": "artanh",
    "sh": "sinh", "ch": "cosh", "th": "tanh", "cth": "coth",
    "sign": "sgn", "signum": "sgn", "ceiling": "ceil", "GCD": "gcd", "LCM": "lcm", "hcf": "gcd", "Re": "Re", "Im": "Im",
}  # fmt: skip

_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa varkappa lambda mu nu xi pi varpi "
    "rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi "
    "Psi Omega"
)
GREEK = {rf"\{name}" for name in _GREEK.split()}
_ACCENTS = "hat widehat vec bar tilde widetilde overline overrightarrow overleftarrow underline mathcal"
ACCENTS = {rf"\{name}" for name in _ACCENTS.split()}
DOTS = {r"\dot": 1, r"\ddot": 2, r"\dddot": 3}
RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!="}
