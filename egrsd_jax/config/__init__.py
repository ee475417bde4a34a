"""The whole run as one value: frozen dataclasses, one per stage of training. Imports no jax.

A field's default is the published setting where the paper states one. A default of `OPEN` stands for a value that
follows from other fields; making a Config fills it in, so no field of a Config is open. Each section checks its own
fields, and Config what holds across them. `command_line.py` reads YAML files and options into a Config.
"""

from egrsd_jax.config.bound import binding as binding
from egrsd_jax.config.config import Config as Config
from egrsd_jax.config.data import DataSettings as DataSettings
from egrsd_jax.config.data import PromptSettings as PromptSettings
from egrsd_jax.config.model import LoraSettings as LoraSettings
from egrsd_jax.config.model import ModelSettings as ModelSettings
from egrsd_jax.config.rollout import RolloutSettings as RolloutSettings
from egrsd_jax.config.run import RunSettings as RunSettings
from egrsd_jax.config.training import EvaluationSettings as EvaluationSettings
from egrsd_jax.config.training import RewardSettings as RewardSettings
from egrsd_jax.config.training import TrainSettings as TrainSettings
