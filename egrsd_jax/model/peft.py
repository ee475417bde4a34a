"""Where version 0.1 had `model.hf.peft`: adapters are read and written by code outside of the package too."""

from egrsd_jax.model.hf.peft import load_adapter as load_adapter
from egrsd_jax.model.hf.peft import save_adapter as save_adapter
