"""The settings that methods share: of the step's mean, of a teacher, of the likelihood ratio and the gate. No jax.

A method's own settings class is one of these with the fields that it adds and the values that it was published with
(`egrsd_jax/objective/methods/`). Each class explains its fields and says which range they have. A field that a method
fixes, such as EGRSD's window of 0, is declared with `init=False`: it can be read, and not be given.
"""

from egrsd_jax.objective.settings.base import FOLLOWS as FOLLOWS
from egrsd_jax.objective.settings.base import OPEN as OPEN
from egrsd_jax.objective.settings.base import Divergence as Divergence
from egrsd_jax.objective.settings.base import Importance as Importance
from egrsd_jax.objective.settings.base import MethodSettings as MethodSettings
from egrsd_jax.objective.settings.divergence import ClippedDivergenceSettings as ClippedDivergenceSettings
from egrsd_jax.objective.settings.divergence import DivergenceSettings as DivergenceSettings
from egrsd_jax.objective.settings.gate import GateKind as GateKind
from egrsd_jax.objective.settings.gate import GateSettings as GateSettings
from egrsd_jax.objective.settings.gate import GateSignal as GateSignal
from egrsd_jax.objective.settings.gate import WeightSettings as WeightSettings
from egrsd_jax.objective.settings.kept_tokens import KeptTokensSettings as KeptTokensSettings
from egrsd_jax.objective.settings.kept_tokens import LowestTokensSettings as LowestTokensSettings
from egrsd_jax.objective.settings.policy_gradient import ClipSettings as ClipSettings
from egrsd_jax.objective.settings.policy_gradient import DistilledGroupSettings as DistilledGroupSettings
from egrsd_jax.objective.settings.policy_gradient import GroupSettings as GroupSettings
from egrsd_jax.objective.settings.teacher import ConsensusSettings as ConsensusSettings
from egrsd_jax.objective.settings.teacher import ContrastSettings as ContrastSettings
from egrsd_jax.objective.settings.teacher import Privilege as Privilege
from egrsd_jax.objective.settings.teacher import Schedule as Schedule
from egrsd_jax.objective.settings.teacher import TeacherSettings as TeacherSettings
from egrsd_jax.objective.settings.teacher import contrasts as contrasts
from egrsd_jax.objective.settings.teacher import privilege as privilege
from egrsd_jax.objective.settings.teacher import reads_completions as reads_completions
from egrsd_jax.objective.settings.teacher import shows_completion as shows_completion
from egrsd_jax.objective.settings.teacher import teacher_mix as teacher_mix
from egrsd_jax.objective.settings.teacher import teacher_schedule as teacher_schedule
from egrsd_jax.objective.settings.teacher import watches as watches
