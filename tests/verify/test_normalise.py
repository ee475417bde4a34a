import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egrsd_jax.verify.measures import measure
from egrsd_jax.verify.normalise import Thousands, measure_of, normalise
from egrsd_jax.verify.units import without_units

ONE_SPELLING = {
    "0.5": [".5", "0.5.", "$0.5$", r"\$0.5", "{0.5}", " 0.5 ", r"\(0.5\)", "**0.5**", r"0.5 \text{ cm}", r"\text{0.5}"],
    "1234567": ["1,234,567", r"1{,}234{,}567", r"1,\!234,\!567", r"1\,234\,567", "1 234 567", "1\u202f234\u202f567"],
    r"4.5\times10^{33}": ["4.5e33", "4.5E+33", r"4.5 \times 10^{33}", r"4.5\times10^33", "4.5×10³³"],
    r"\frac{1}{2}": [r"\frac12", r"\frac 1 2", r"\frac{1}2", r"\frac1{2}", r"\dfrac{1}{2}", r"\tfrac12"],
    r"\frac{\pi}{2}": [r"\frac\pi2", r"\dfrac{\pi}{2}", r"\frac{ π }{2}", r"\frac{pi}{2}"],
    r"\sqrt{13}": [r"\sqrt13", r"\sqrt 13", r"\sqrt{13}", "sqrt(13)", "√13", "√(13)"],
    r"\sqrt[3]{2}": [r"\sqrt[3]2", r"\sqrt[3]{2}"],
    r"\sqrt{\frac{1}{2}}": [r"\sqrt\frac12", r"\sqrt{\frac{1}{2}}"],
    "x^{2}": ["x^2", "x^{2}", "x**2", "x²", "x^(2)", "{x^2}"],
    "x_{1}+y": ["x_1 + y", "x_{1}+ y", r"x_{\text{1}} + y"],
    r"\cos x": [r"\cos x", r"\cos  x", r"\cos\,x"],
    r"\cos\theta": [r"\cos \theta", "\\cosθ"],
    r"(3,\frac{\pi}{2})": [r"\left( 3, \frac{\pi}{2} \right)", r"\bigl(3,\frac\pi2\bigr)"],
    "(1,2)": [r"\langle 1, 2 \rangle", r"\left(1,\,2\right)"],
    r"\{1,2\}": [r"\{1, 2\}", r"\left\{ 1, 2 \right\}", r"\lbrace 1,2 \rbrace"],
    "1,2": ["1, 2", r"1 \text{ and } 2", "1 and 2", r"1\text{ or }2", "1, and 2", r"1,\;2"],
    "[-2,7]": [r"x \in [-2,7]", "x∈[-2, 7]", r"\left[-2,7\right]"],
    r"(2,\infty)": [r"(2,+\infty)", r"(2, \infty)", "(2,∞)", "(2, infinity)"],
    r"\emptyset": [r"\varnothing", "∅", r"\{\}", r"\{ \}"],
    "B": [r"\text{(B)}", "(B)", "B)", "B.", r"\textbf{(B)}", r"\mathrm{B}", r"\text{B}"],
    r"\text{no solution}": [r"\text{No solution}", r"\text{ no  solution. }", r"\textbf{NO SOLUTION}."],
    "y'+y''": ["y'+y''", r"y^{\prime}+y^{\prime\prime}", r"y^\prime+y^{\prime \prime}", "y′+y′′"],
    "10%": [r"10\%", "10%", "10 percent", r"10 \text{ percent}", "10％"],
    r"\begin{matrix}1\\2\end{matrix}": [r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"],
    r"x\le2": [r"x \leq 2", "x<=2", "x ≤ 2", r"x\leqslant 2"],
    r"\arcsin(10/13)": ["np.arcsin(10/13)", r"\arcsin (10/13)"],
    "90": [r"90^\circ", r"90^{\circ}", "90°", "90 degrees", r"90\text{ degrees}", r"90 \degree", r"90^\circ\mathrm{C}"],
    r"0.\overline{3}": [r"0.\overline{3}", r".\overline{3}"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("canonical", "spelling"), [(canonical, spelling) for canonical, all_ in ONE_SPELLING.items() for spelling in all_]
)
def test_many_spellings_are_one(canonical, spelling):
    assert normalise(spelling) == canonical


@pytest.mark.parametrize("canonical", ONE_SPELLING)
def test_a_canonical_spelling_stays(canonical):
    assert normalise(canonical) == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 4", "34"),
        ("58,500", "58.500"),
        ("1,2", "12"),
        ("(1,000)", "(1000)"),
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        ("2t", "2"),
        (r"\frac{1}{m}t", r"\frac{1}{m}"),
        ("4.5e", "4.5"),
        ("2e-3t", r"2\times10^{-3}t"),
        ("7:30 \\text{ p.m.}", "7:30 \\text{ a.m.}"),
        ("5 million", "5"),
        ("r", "R"),
        ("[1,2]", "(1,2)"),
        ("y'", "y"),
        (r"x_{\text{max}}", r"x"),
    ],
)
def test_what_differs_stays_different(one, other):
    assert normalise(one) != normalise(other)


def test_a_comma_separates_where_no_thousands_are_expected():
    assert normalise("100,200") == "100200"
    assert normalise("100,200", thousands=Thousands.NOWHERE) == "100,200"
    assert normalise(r"100{,}200", thousands=Thousands.NOWHERE) == "100200"
    assert normalise("(1,000, 2)", thousands=Thousands.EVERYWHERE) == "(1000,2)"


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (r"5 \text{ cm}^2", "5"),
        (r"5 \mathrm{ m} / \mathrm{s}", "5"),
        (r"2\pi \text{ m/s}^{2}", r"2\pi"),
        ("18 dollars per day", "18"),
        ("5 sin x", "5 sin x"),
        (r"x_{\text{max}}", r"x_{\text{max}}"),
        (r"\text{even}", r"\text{even}"),
        (r"3 \mathrm{e}^{x}", r"3 \mathrm{e}^{x}"),
        ("2 million euros", r"2\times 10^{6}"),
        ("16 eggs, 3 hens", "16, 3"),
    ],
)
def test_units_are_dropped_and_mathematics_is_not(written, left):
    assert without_units(written).rstrip() == left


@pytest.mark.parametrize(
    ("written", "same"),
    [
        (r"\text{ cm}^2", "square centimeters"),
        (r"\,\mathrm{m\,s^{-1}}", "m/s"),
        (r"\frac{\text{m}}{\text{s}}", "meters per second"),
        (r"\mathrm{~km} / \mathrm{h}", "km/h"),
        (r"\text{ N}\cdot\text{m}", "J"),
        ("kWh", "kWh"),
        (r"\mu\text{m}", "um"),
    ],
)
def test_a_unit_has_many_spellings(written, same):
    assert measure(written) == measure(same)


def test_units_have_sizes_and_kinds():
    centimetre, metre, second = (measure_of(rf"5 \text{{ {unit}}}") for unit in ("cm", "m", "s"))
    assert centimetre
    assert metre
    assert second
    assert (centimetre.kind, metre.size / centimetre.size) == (metre.kind, 100)
    assert metre.kind != second.kind
    assert measure_of(r"5 \text{ eggs}") is None
    assert measure_of("x^2") is None
    assert measure_of(r"\$5") == measure_of("5 dollars") != measure_of("5 cents")


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=st.sampled_from("\\{}()[]^_ ,.$%0129eExi'-+=!|&~") | st.characters(), max_size=60))
def test_any_text_can_be_normalised(text):
    assert normalise(text) == normalise(text.strip())
