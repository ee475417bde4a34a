r"""How large a unit is: 10 m is not 10 cm, and 1 km is 1000 m.

Only where both answers write a unit that is known is it compared: of another kind it is wrong, of another size the
value is converted. A unit that one answer leaves out was named by the problem, and is dropped (`units`).
"""

import re
from fractions import Fraction
from typing import NamedTuple

from egrsd_jax.verify.rewrite import STYLE


class Measure(NamedTuple):
    """A unit in units of its kind: size 1/100 of `m` to the first power for cm."""

    size: Fraction
    kind: tuple[tuple[str, int], ...]  # base units with their powers, in alphabetical order


_F = Fraction
# Names, size, base units. Currencies are kinds of their own.
_TABLE: tuple[tuple[str, Fraction, dict[str, int]], ...] = (
    ("m meter meters metre metres", _F(1), {"m": 1}),
    ("in inch inches", _F(254, 10_000), {"m": 1}),
    ("ft foot feet", _F(3048, 10_000), {"m": 1}),
    ("yd yard yards", _F(9144, 10_000), {"m": 1}),
    ("mi mile miles", _F(1_609_344, 1000), {"m": 1}),
    ("angstrom angstroms AA Å", _F(1, 10**10), {"m": 1}),
    ("micron microns", _F(1, 10**6), {"m": 1}),
    ("AU au", _F(149_597_870_700), {"m": 1}),
    ("ly lightyear lightyears", _F(9_460_730_472_580_800), {"m": 1}),
    ("pc parsec parsecs", _F(30_856_775_814_913_673), {"m": 1}),
    ("g gram grams", _F(1, 1000), {"kg": 1}),
    ("lb lbs pound pounds", _F(45_359_237, 10**8), {"kg": 1}),
    ("oz ounce ounces", _F(45_359_237, 16 * 10**8), {"kg": 1}),
    ("ton tons tonne tonnes", _F(1000), {"kg": 1}),
    ("s sec secs second seconds", _F(1), {"s": 1}),
    ("min mins minute minutes", _F(60), {"s": 1}),
    ("h hr hrs hour hours", _F(3600), {"s": 1}),
    ("day days", _F(86_400), {"s": 1}),
    ("week weeks", _F(604_800), {"s": 1}),
    ("year years yr yrs", _F(31_557_600), {"s": 1}),
    ("K kelvin kelvins", _F(1), {"K": 1}),
    ("A amp amps ampere amperes", _F(1), {"A": 1}),
    ("mol mole moles", _F(1), {"mol": 1}),
    ("N newton newtons", _F(1), {"kg": 1, "m": 1, "s": -2}),
    ("dyn dyne dynes", _F(1, 10**5), {"kg": 1, "m": 1, "s": -2}),
    ("J joule joules", _F(1), {"kg": 1, "m": 2, "s": -2}),
    ("erg ergs", _F(1, 10**7), {"kg": 1, "m": 2, "s": -2}),
    ("eV", _F(1_602_176_634, 10**28), {"kg": 1, "m": 2, "s": -2}),
    ("cal calorie calories", _F(4184, 1000), {"kg": 1, "m": 2, "s": -2}),
    ("W watt watts", _F(1), {"kg": 1, "m": 2, "s": -3}),
    ("Pa pascal pascals", _F(1), {"kg": 1, "m": -1, "s": -2}),
    ("bar bars", _F(10**5), {"kg": 1, "m": -1, "s": -2}),
    ("atm", _F(101_325), {"kg": 1, "m": -1, "s": -2}),
    ("Hz hertz", _F(1), {"s": -1}),
    ("V volt volts", _F(1), {"A": -1, "kg": 1, "m": 2, "s": -3}),
    ("C coulomb coulombs", _F(1), {"A": 1, "s": 1}),
    ("ohm ohms Omega", _F(1), {"A": -2, "kg": 1, "m": 2, "s": -3}),
    ("F farad farads", _F(1), {"A": 2, "kg": -1, "m": -2, "s": 4}),
    ("T tesla teslas", _F(1), {"A": -1, "kg": 1, "s": -2}),
    ("Wb weber webers", _F(1), {"A": -1, "kg": 1, "m": 2, "s": -2}),
    ("L l liter liters litre litres", _F(1, 1000), {"m": 3}),
    ("gallon gallons gal", _F(3_785_411_784, 10**12), {"m": 3}),
    ("mph", _F(1_609_344, 3_600_000), {"m": 1, "s": -1}),
    ("dollar dollars USD usd $", _F(1), {"dollar": 1}),
    ("cent cents ¢", _F(1, 100), {"dollar": 1}),
    ("euro euros EUR €", _F(1), {"euro": 1}),
    ("Msun", _F(198_847 * 10**25), {"kg": 1}),
    ("Lsun", _F(3828 * 10**23), {"kg": 1, "m": 2, "s": -3}),
    ("Rsun", _F(6957 * 10**5), {"m": 1}),
)  # fmt: skip
_PREFIXES = {
    "f": -15, "p": -12, "n": -9, "u": -6, "μ": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12,
    "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6, "giga": 9,
}  # fmt: skip
_TAKES_PREFIX = (
    "m g s A K N J W Pa Hz V C F T L l eV pc bar mol ohm Omega cal ly meter meters metre metres gram grams second "
    "seconds newton newtons joule joules watt watts pascal pascals hertz volt volts liter liters litre litres "
    "electronvolt parsec parsecs calorie calories ohms"
)
_KNOWN = {name: Measure(size, tuple(sorted(kind.items()))) for names, size, kind in _TABLE for name in names.split()}
_KNOWN |= {
    prefix + name: Measure(_KNOWN[name].size * _F(10) ** power, _KNOWN[name].kind)
    for name in set(_TAKES_PREFIX.split()) & set(_KNOWN)
    for prefix, power in _PREFIXES.items()
    if (prefix + name) not in _KNOWN and (len(prefix) == 1) == (len(name) <= 3 or name == "Omega")
}
_TOKEN = re.compile(r"([A-Za-zÅ$¢€μ]+)|(\^ ?\{? ?-?\d+ ?\}?)|(/)|(\d+)|.")


def measure(written: str) -> Measure | None:
    r"""The unit that is written as `\text{ km}/\mathrm{h}` or `square feet per second`; None where it is not known."""
    text = re.sub(r"([MLR])\}? ?_ ?\{? ?(?:\\(?:big)?odot|(?:\\text ?\{)? ?sun) ?\}*", r"\1sun", written)
    text = text.replace(r"\mu", "u").replace(r"\AA", "angstrom").replace(r"\Omega", "ohm").replace("μ ", "u")
    text = re.sub(r"\^ ?\{ ?(-?\d+) ?\}", r"^\1", text)
    text = re.sub(rf"{STYLE}\{{|\\frac|\\cdot|\\times|\\[,;: ]|[~()]", " ", text)
    if (halves := re.fullmatch(r" *\{ *([^{}]*)\} *\} *\{ *([^{}]*)\} *\} *", text)) is not None:
        text = f"{halves[1]}/{halves[2]}"
    text = re.sub(r"(?<![A-Za-z])per(?![A-Za-z])", "/", re.sub(r"[{}]", " ", text))
    text = re.sub(r"(?<![A-Za-z])([kMm]) +ohm", r"\1ohm", text)
    size, powers, sign, raised, count = Fraction(1), dict[str, int](), 1, 0, 0
    for word, power, over, digits in _TOKEN.findall(text.replace("u m", "um").replace("u s", "us")):
        if word in {"square", "sq", "cubic", "cu"}:
            raised = 2 if word.startswith("sq") else 3
        elif word:
            if (unit := _KNOWN.get(word)) is None:
                return None
            last = (unit, sign * (raised or 1))
            size, raised, count = _times(size, powers, *last), 0, count + 1
        elif power and count:
            exponent = int(power.strip("^{} "))
            size = _times(size, powers, last[0], last[1] * (exponent - 1))
        elif over:
            sign = -1
        elif digits or power:
            return None
    kind = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Measure(size, kind) if count else None


def _times(size: Fraction, powers: dict[str, int], unit: Measure, power: int) -> Fraction:
    """Multiply by a unit to a power; the powers of base units are changed in place."""
    for name, base_power in unit.kind:
        powers[name] = powers.get(name, 0) + power * base_power
    return size * unit.size**power
