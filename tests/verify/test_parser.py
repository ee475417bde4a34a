import pytest

from egrsd_jax.verify.algebra import algebraically_equal
from egrsd_jax.verify.normalise import normalise
from egrsd_jax.verify.number import number
from egrsd_jax.verify.parser import parse
from egrsd_jax.verify.reading import reading_of
from egrsd_jax.verify.syntax import Node, Reading, Unreadable, is_name, tokens
from tests.verify.test_grade import golds


def leaves(node):
    """Every text in a tree."""
    if not isinstance(node, tuple):
        return [str(node)]
    return [leaf for part in (node.parts if isinstance(node, Node) else node) for leaf in leaves(part)]


def test_every_name_index_and_function_of_a_gold_is_in_its_tree(shared_data):
    read = 0
    for gold in dict.fromkeys(str(gold) for _, gold in golds(shared_data)):
        text = normalise(gold)
        if number(text) or r"\text" in text:
            continue
        try:
            written = " ".join(leaves(parse(text, reading_of(text, text))))
        except Unreadable:
            continue  # a list, a set, an interval: taken apart before
        read += 1
        for token in tokens(text):
            if is_name(token) and token not in {"d", "e"}:
                assert token in written, (gold, token, written)
    assert read > 100


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (r"\frac{d(x+1)}{dt}", "derivative of something"),
        (r"\int x dx", "no limits"),
        (r"\oint x", "oint"),
        ("3 4", "gap"),
        ("x2", "gap"),
        ("(1,2)", "several values"),
        (r"\operatorname{foo}", "foo"),
        (r"\sin", "too early"),
        ("((x)", "too early"),
        ("x+" * 3, "too early"),
        ("(" * 70 + "x" + ")" * 70, "nested"),
        ("2x)", "does not continue"),
        (r"f^{-1}'", "prime"),
    ],
)
def test_what_is_not_known_is_refused_and_named(text, named):
    with pytest.raises(Unreadable, match=named):
        parse(text, Reading())


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("f(1+m)", "f+fm", True),  # f is alone in the second, so it is a factor
        ("f(1+m)", "f+m", False),
        ("g^{-1}(x)", r"\frac{1}{g(x)}", False),
        ("u(t)", "tu", True),
        (r"\frac{dx}{dt}", r"\frac{dx}{ds}", False),
        ("x''", r"\frac{d^{2}x}{dt^{2}}", True),
        (r"\sin 2x\cos x", r"\cos(x)\sin(2x)", True),
        (r"\sin 2(x+1)", r"\sin(2x+2)", True),
        ("||x|-1|", "|1-|x||", True),
        ("2^{3^{2}}", "512", True),
        ("-2^{2}", "-4", True),
        (r"\log_{2}8", "3", True),
        (r"\sum_{i=1}^{4}i", "10", True),
        (r"\int_{0}^{1}2x dx", "1", True),
    ],
)
def test_readings(one, other, equal):
    assert algebraically_equal(one, other) is equal
    assert algebraically_equal(other, one) is equal


def test_equations_sets_and_values_are_three_kinds():
    assert algebraically_equal("x<2", "(-\\infty,2)")
    assert not algebraically_equal("x", "(-\\infty,2)")
    assert not algebraically_equal("x+1=0", "x+1")
    assert algebraically_equal(r"\frac{dv}{dt}=\frac{f-bv}{m}", r"m\frac{dv}{dt}+bv=f")
    with pytest.raises(Unreadable, match="sides are"):
        algebraically_equal("x=x", "y=2")
