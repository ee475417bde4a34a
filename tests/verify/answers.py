r"""Answers as models write them, for hypothesis, each with another spelling of its value and with another value.

Larger ones are put together from such triples by operations that are one to one, so that where one part has another
value, so has the whole. `pairs` makes of them what a grader gets.
"""

from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


class Answer(NamedTuple):
    """A gold answer, another spelling of the same value, and a spelling of another value."""

    gold: str
    same: str
    other: str


# --- Single values -------------------------------------------------------------------------------------------------

_whole = st.integers(1, 99) | st.integers(1, 99) | st.integers(100, 10**7) | st.integers(10**15, 10**25)
_small = st.integers(2, 9)
_FRACTIONS = (r"\frac{{{}}}{{{}}}", r"\dfrac{{{}}}{{{}}}", r"\tfrac{{{}}}{{{}}}", "({}/{})", r"\frac {{{}}} {{{}}}")


def _decimal(units: int, places: int) -> str:
    """units / 10^places in digits."""
    digits = str(units).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


def _fraction(top: int, bottom: int) -> SearchStrategy[str]:
    """A spelling of a fraction, reduced or not, that keeps its value within any expression."""
    return st.builds(lambda shape, by: shape.format(top * by, bottom * by), st.sampled_from(_FRACTIONS), _small)


@st.composite
def numbers(draw: st.DrawFn) -> Answer:
    """Positive numbers without thousands separators."""
    value, step = draw(_whole), draw(_small)
    match draw(st.sampled_from(["whole", "fraction", "decimal", "power of ten"])):
        case "whole":
            return Answer(str(value), draw(st.just(f"{value}.0") | _fraction(value, 1)), str(value + step))
        case "fraction":
            bottom = draw(st.integers(2, 999))
            return Answer(*(draw(_fraction(top, bottom)) for top in (value, value, value + step)))
        case "decimal":
            places = draw(st.integers(1, 8))
            same = draw(st.just(_decimal(10 * value, places + 1)) | _fraction(value, 10**places))
            return Answer(_decimal(value, places), same, _decimal(value + step, places))
        case _:
            digits, power = draw(st.integers(11, 99)), draw(st.integers(-40, 40))
            same = rf"{digits} \cdot 10^{{{power - 1}}}"
            gold, other = (rf"{_decimal(digits, 1)} \times 10^{{{n}}}" for n in (power, power + step))
            return Answer(gold, same, other)


@st.composite
def surds(draw: st.DrawFn) -> Answer:
    """c√n against its square under the root, its root below the line, its fourth power under a fourth root."""
    factor, under = draw(st.integers(2, 30)), draw(st.integers(2, 50))
    spellings = (
        rf"\sqrt{{{factor**2 * under}}}",
        rf"\frac{{{factor * under}}}{{\sqrt{{{under}}}}}",
        rf"\sqrt{{{under}}} \cdot {factor}",
        rf"{factor}({under})^{{1/2}}",
        rf"\sqrt[4]{{{factor**4 * under**2}}}",
    )
    return Answer(rf"{factor}\sqrt{{{under}}}", draw(st.sampled_from(spellings)), rf"{factor + 1}\sqrt{{{under}}}")


@st.composite
def symbols(draw: st.DrawFn) -> Answer:
    """A constant or an unknown with a factor."""
    factor, symbol = draw(_small), draw(st.sampled_from([r"\pi", "e", "x", "y", "n", "t", r"\theta", "a_{1}", "R"]))
    spellings = (rf"{symbol} \cdot {factor}", f"{factor} {symbol}", rf"\frac{{{2 * factor}{symbol}}}{{2}}")
    return Answer(f"{factor}{symbol}", draw(st.sampled_from(spellings)), f"{factor + 1}{symbol}")


# A gold, and another way to write it: each one to one in every argument, where arguments are positive, and positive.
_SHAPES = (
    ("√", r"\sqrt{{{0}}}", r"({0})^{{\frac{{1}}{{2}}}}"),
    ("∛", r"\sqrt[3]{{{0}}}", r"\left({0}\right)^{{1/3}}"),
    ("²", r"\left({0}\right)^2", "({0})({0})"),
    ("³", "({0})^{{3}}", r"({0})^{{2}} \cdot \left({0}\right)"),
    ("ln", r"\ln(1+{0})", r"\log_{{e}}\left({0}+1\right)"),
    ("exp", r"e^{{{0}}}", r"\exp({0})"),
    ("2^", r"2^{{{0}}}", r"2 \cdot 2^{{{0}-1}}"),
    ("+", "{0} + {1}", "{1}+{0}"),
    ("·", r"({0}) \cdot ({1})", r"\left({1}\right)\left({0}\right)"),
    ("/", r"\frac{{{0}}}{{{1}}}", "({0})/({1})"),
    ("2/2", r"\dfrac{{{0}}}{{{1}}}", r"\frac{{2({0})}}{{2({1})}}"),
    ("^", "({0}+1)^{{{1}}}", r"{{\left(1+{0}\right)}}^{{{1}}}"),
)


def _put_together(parts: tuple[Answer, ...], gold: str, same: str, wrong: int) -> Answer:
    golds = [part.gold for part in parts]
    one_wrong = [part.other if n == wrong % len(parts) else part.gold for n, part in enumerate(parts)]
    return Answer(gold.format(*golds), same.format(*(part.same for part in parts)), gold.format(*one_wrong))


def _larger(parts: SearchStrategy[Answer]) -> SearchStrategy[Answer]:
    return st.builds(
        lambda shape, items, wrong: _put_together(items[: 2 if "{1}" in shape[1] else 1], shape[1], shape[2], wrong),
        st.sampled_from(_SHAPES),
        st.tuples(parts, parts),
        st.integers(0, 1),
    )


expressions = st.recursive(numbers() | surds() | symbols(), _larger, max_leaves=5)


# A gold and a prediction; {0} is a whole number.
_WRITTEN = (
    ("{0}", "{0:,}"),
    ("{0}", r"\${0:,}.00"),
    ("{0}", r"{0} \text{{ cm}}^2"),
    ("{0}", r"{0:,}\ \mathrm{{~km}} / \mathrm{{h}}"),
    ("{0}", "{0} dollars per day"),
    ("{0} degrees", "{0}°"),
    (r"{0}^\circ", r"{0}^{{\circ}}"),
    (r"{0}^\circ 30'", "{0}.5"),
    (r"\cos {0}^\circ", r"\sin\left(90^\circ + {0}^{{\circ}}\right)"),
    (r"{0}\%", "{0}"),
    ("{0}", "{0} percent"),
    ("{0}", "x = {0}"),
    ("{0}000", "{0}e3"),
    (r"\frac{{{0}}}{{1000}}", "{0}E-3"),
    ("-{0}", "−{0}"),
    ("{0}", "({0})"),
    (r"{0}\frac{{1}}{{3}}", r"{0}.\overline{{3}}"),
    (r"\frac{{2 \cdot {0} + 1}}{{2}}", r"{0}\tfrac12"),
    (r"\binom{{5}}{{2}}\binom{{{0}}}{{1}}", "{0}(10)"),
    ("{0}+2i", "2i + {0}"),
    (r"{0} \pm \sqrt{{2}}", r"{0}-\sqrt2, {0}+\sqrt2"),
    ("(2, {0}]", r"2 < x \le {0}"),
    ("x > {0}", r"({0}, \infty)"),
    (r"[{0}, \infty)", r"\{{t \mid t \ge {0}\}}"),
    (r"(-\infty, -1) \cup (1, {0})", r"(1, {0}) \cup \left(-\infty, -1\right)"),
    ("3x - 2y = {0}", "2y + {0} = 3x"),
)  # fmt: skip


@st.composite
def written(draw: st.DrawFn) -> Answer:
    """Whole numbers with what models write around them."""
    gold, said = draw(st.sampled_from(_WRITTEN))
    value, step = draw(_whole) + 2, draw(_small)
    if "circ" in gold:
        value %= 80  # of an acute angle, so that the cosine is one to one
    return Answer(gold.format(value), said.format(value), said.format(value + step))


# --- Several values ------------------------------------------------------------------------------------------------

# How a gold and a prediction write them, and whether their order says nothing.
_SEVERAL = (
    (r"\{{{}\}}", r"\left\{{ {} \right\}}", True),
    ("{}", "{}", True),
    ("{}", r"\{{{}\}}", True),
    ("({})", r"\left( {} \right)", False),
    ("({})", "{}", False),
)


def _one_wrong(draw: st.DrawFn, items: list[Answer]) -> list[str]:
    wrong = draw(st.integers(0, len(items) - 1))
    return [item.other if n == wrong else item.same for n, item in enumerate(items)]


@st.composite
def several(draw: st.DrawFn) -> Answer:
    """Sets, lists and tuples."""
    gold, said, is_unordered = draw(st.sampled_from(_SEVERAL))
    items = draw(st.lists(expressions, min_size=2, max_size=4))
    same, other = [item.same for item in items], _one_wrong(draw, items)
    if is_unordered:
        same, other = draw(st.permutations(same)), draw(st.permutations(other))
    return Answer(
        gold.format(", ".join(item.gold for item in items)), said.format(", ".join(same)), said.format(", ".join(other))
    )


@st.composite
def matrices(draw: st.DrawFn) -> Answer:
    """Matrices of up to three rows and columns, in round and in square brackets."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    cells = draw(st.lists(numbers() | surds() | symbols(), min_size=rows * columns, max_size=rows * columns))

    def matrix(kind: str, texts: list[str]) -> str:
        lines = r" \\ ".join(" & ".join(texts[n : n + columns]) for n in range(0, len(texts), columns))
        return rf"\begin{{{kind}matrix}} {lines} \end{{{kind}matrix}}"

    same, other = [cell.same for cell in cells], _one_wrong(draw, cells)
    return Answer(matrix("p", [cell.gold for cell in cells]), matrix("b", same), matrix("b", other))


@st.composite
def intervals(draw: st.DrawFn) -> Answer:
    """Intervals, of which an end or a bracket is wrong."""
    low, high = draw(numbers()), draw(numbers())
    opening, closing = draw(st.sampled_from("([")), draw(st.sampled_from(")]"))
    wrong_opening, wrong_low = draw(st.sampled_from([(opening, low.other), ("(["[opening == "("], low.same)]))
    return Answer(
        f"{opening}{low.gold}, {high.gold}{closing}",
        rf"\left{opening}{low.same},{high.same}\right{closing}",
        f"{wrong_opening}{wrong_low}, {high.same}{closing}",
    )


words = st.sampled_from(["Evelyn", "east", "even", "No solution", "B"]).map(
    lambda word: Answer(rf"\text{{{word}}}", rf"\textbf{{{word}}}.", r"\text{west}")
)
# With a letter or a name in words, which only predictions are read without.
labelled = st.sampled_from("ABCD").map(
    lambda letter: Answer(rf"\text{{({letter})}}", rf"\textbf{{({letter})}}\ 12", r"\textbf{(E)}\ 12")
) | _whole.map(lambda value: Answer(f"{value}", rf"\text{{Area}} = {value}", rf"\text{{Area}} = {value + 1}"))
known = expressions | written() | several() | matrices() | intervals() | words
