"""The README's Python blocks run as written."""

import re
from pathlib import Path

import jax
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block, capsys):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a reader's own settings
        exec(compile(block, str(README), "exec"), {})
    if "print(" in block:
        assert "loss" in capsys.readouterr().out


def test_there_are_blocks_for_losses_and_models():
    assert any("egrsd_loss" in block for block in BLOCKS)
    assert any("load_pretrained" in block for block in BLOCKS)
