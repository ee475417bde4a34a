"""Every test run: CPU, eight host devices, strict dtype promotion, and rank promotion that raises."""

import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # The tests compile much and compute little: together these make compiling several times faster.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder with the benchmark files and the Qwen3 tokenizer, which live beside the project and not in it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the data folder ../shared/data (GSM8K, MATH-500, the Qwen3 tokenizer), which is not here")
    return SHARED_DATA
