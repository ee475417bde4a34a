"""What pyproject.toml has no words for: `configs/` is installed inside the package, as `egrsd_jax.configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["egrsd_jax*"]), "egrsd_jax.configs", "egrsd_jax.configs.ablate"],
    package_dir={"egrsd_jax.configs": "configs", "egrsd_jax.configs.ablate": "configs/ablate"},
)
