"""Where a run keeps what it leaves, and how long it waits."""

from dataclasses import dataclass
from typing import Literal

from egrsd_jax.ranges import at_least, check_ranges, require


@dataclass(frozen=True)
class RunSettings:
    """Where a run keeps what it leaves.

    Args:
        dir: folder of all runs.
        name: this run's folder inside it. By default it is made of the model, the method and the seed.
        track: where metrics go besides metrics.jsonl: `auto` is TensorBoard where it is installed; `none`,
            `tensorboard`, or `wandb` or `trackio` next to it.
        coordinator: for several hosts, `auto` on a TPU pod or under Slurm, else the first host's ADDRESS:PORT.
        hosts: how many hosts take part, where the coordinator is an address.
        host: which of them this one is, from 0.
        heartbeat: seconds without a sign of life from a host after which the others end.
        grace: seconds that a run has, after Ctrl-C or SIGTERM, to end its step and write a checkpoint.
        restart: moves what an earlier run left in this run's folder aside, and starts over.
        older_checkpoint: where the newest checkpoint is damaged, resumes from the newest one that is whole.
        compilation_cache: folder of compiled programs, which a later start reads instead of compiling; `off` is none.
            `auto` is what EGRSD_COMPILATION_CACHE or JAX_COMPILATION_CACHE_DIR say, else the user's cache folder.
    """

    dir: str = "runs"
    name: str | None = None
    track: Literal["auto", "none", "tensorboard", "wandb", "trackio"] = "auto"
    coordinator: str | None = None
    hosts: int | None = None
    host: int | None = None
    heartbeat: int = 100
    grace: float = 25.0
    restart: bool = False
    older_checkpoint: bool = False
    compilation_cache: str = "auto"

    def __post_init__(self):
        check_ranges("run.", self, {"heartbeat": at_least(1), "grace": at_least(0)})
        fix = "it must be a folder, auto or off"
        require((bool(self.compilation_cache.strip()), f"run.compilation_cache is empty; {fix}"))
