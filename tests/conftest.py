"""Every test run: CPU, eight host devices, strict dtype promotion, and rank promotion that raises."""

import os

from tests.commands import QUICK_TO_COMPILE

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", QUICK_TO_COMPILE]
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["EGRSD_COMPILATION_CACHE"] = "off"  # no test reads what another left, or writes in the user's home
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder with the benchmark files and the Qwen3 tokenizer, which live next to the project and not in it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the data folder ../shared/data (GSM8K, MATH-500, the Qwen3 tokenizer), which is not here")
    return SHARED_DATA


@pytest.fixture(scope="module")
def compiled_programs(tmp_path_factory):
    """Processes that a module starts share what they compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EGRSD_COMPILATION_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield
