"""The public names of `egrsd_jax`: none is lost, each is there when it runs and when it is only read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import egrsd_jax

FILE = Path(egrsd_jax.__file__)
# What is public stays public: a name leaves this list only with a note of its own in CHANGELOG.md.
PUBLIC = {
    "METHODS", "MethodSettings", "ModelConfig", "RunningMoments", "Signals", "TokenScores", "egrsd_loss",
    "entropy_gate", "entropy_maximum", "extract_answer", "forward", "grade", "group_advantage", "grpo_loss",
    "init_moments", "load_pretrained", "lookahead_min", "method_settings", "output_head", "ratio_weight",
    "save_pretrained", "shaped_reward", "token_divergence", "token_logps", "token_scores", "top_k_divergence",
    "top_tokens", "update_moments", "whiten",
}  # fmt: skip


def declared() -> dict[str, str]:
    """The names that a type checker sees -> their modules, from the block that never runs."""
    blocks = [node for node in ast.parse(FILE.read_text()).body if isinstance(node, ast.If)]
    [block] = [node for node in blocks if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]
    names = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        [alias] = node.names
        assert alias.name == alias.asname, "only `x as x` is public to a type checker"
        names[alias.name] = str(node.module).removeprefix("egrsd_jax.")
    return names


def test_no_public_name_is_lost():
    assert set(egrsd_jax.__all__) >= PUBLIC


def test_every_public_name_is_in_the_list():
    assert set(egrsd_jax.__all__) <= PUBLIC, "add new names to PUBLIC"


def test_a_type_checker_sees_what_runs():
    assert declared() == egrsd_jax._HOME_OF


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_imported(name):
    assert getattr(egrsd_jax, name) is not None
    assert name in dir(egrsd_jax)


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(AttributeError, match="its public names are METHODS, "):
        _ = egrsd_jax.egrsd_losss


def test_importing_the_package_imports_no_jax():
    code = "import egrsd_jax, sys; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=FILE.parents[1], check=True, timeout=60)
