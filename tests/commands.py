"""The package's commands as tests run them: in this process where only their messages matter, else in one of their own.

Without `jax`, so that `conftest.py` may take the flags from here before jax reads them.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The tests compile much and compute little: together these make XLA compile in a third of the time. A flag that it does
# not know ends the process, so one that later versions no longer have is only given to 0.10.
QUICK_TO_COMPILE = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith("0.10.") else []),
    ]
)
# Torch is no requirement of the project, but transformers and tensorboardX import it where they find it, which takes
# longer than most of what is run here.
# None in sys.modules would hide it too, but scipy.stats then reads torch.Tensor of that None.
HIDE_TORCH = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] == "torch" else find(name, *rest)
"""
WITHOUT_TORCH = f"""{HIDE_TORCH}
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command_line(launcher: str, *arguments: object) -> list[str]:
    """`python launch/NAME.py ...`, which finds no torch, as after `pip install -r requirements.txt`."""
    return [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "launch" / launcher), *map(str, arguments)]


def environment(devices: int = 1, flags: str = QUICK_TO_COMPILE) -> dict[str, str]:
    """This process's environment with a number of host devices and flags for XLA."""
    flags = f"--xla_force_host_platform_device_count={devices} {flags}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def start(launcher: str, *arguments: object, **options) -> subprocess.Popen:
    """A process with its two outputs in one, to be finished or killed; options are `environment`'s."""
    return subprocess.Popen(
        command_line(launcher, *arguments),
        env=environment(**options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> list[str]:
    """What each process printed; all of them must end without an error."""
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def refused(capsys: pytest.CaptureFixture[str], launcher: str, *arguments: object) -> str:
    """The one line on stderr, and no other output, with which a command ends that cannot do what it is asked for."""
    from egrsd_jax.cli.main import main

    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([Path(launcher).stem, *map(str, arguments)], program=launcher)
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (2, ""), printed
    assert printed.err.count("\n") == 1, printed.err
    return printed.err
