"""The mechanism in numbers: from every token's log-probabilities and entropy to its weights, its regime, and what holds
on the mean. Each definition is the objective's own; nothing is defined here a second time.

B completions, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.objective.gate import gate
from egrsd_jax.objective.losses import ratio_weight
from egrsd_jax.objective.profiles import EntropyDeciles, PositionProfile, entropy_deciles, position_profile
from egrsd_jax.objective.regimes import REGIME_NAMES, REGIME_WINDOW, regime_metrics, token_regimes
from egrsd_jax.objective.settings import GateSettings, MethodSettings
from egrsd_jax.ops.keys import Use, key_for
from egrsd_jax.ops.masked import masked_quantile

LOW_QUANTILE, HIGH_QUANTILE = 0.5, 0.7  # of normalised entropy: the regimes' thresholds
RESAMPLES = 200  # bootstrap: a standard error from so many is itself good to 5%
ORDER = ("lock", "mid", "pivot", "fork")  # in which regimes are shown


@dataclass(frozen=True)
class Study:
    """The gate that the completions are analysed with.

    `gamma`, `epsilon`, `floor`, `scope` and `denominator` are the method's. `window` is the lookahead that regimes and
    omega^CL are computed with. With `looks_ahead` the update itself is gated with it, and not by omega alone.
    """

    gamma: float = 0.3
    window: int = REGIME_WINDOW
    epsilon: float = 0.2
    floor: float = 0.1
    scope: str = "batch"
    denominator: str = "raw"
    looks_ahead: bool = False

    @classmethod
    def of(cls, method: MethodSettings, *, gamma: float | None = None, window: int | None = None) -> "Study":
        """The gate of a method, or the paper's study where it has none; a gamma or a window given replaces its own. A
        method without a lookahead is analysed with the study's, as its training is logged."""
        names = ("gamma", "epsilon", "floor", "scope", "denominator")
        own = {name: getattr(method, name) for name in names if name in method.__dataclass_fields__}
        lookahead = method.window if isinstance(method, GateSettings) else 0
        given = {"window": lookahead or None} | {"gamma": gamma} | ({} if window is None else {"window": window})
        own |= {name: value for name, value in given.items() if value is not None}
        return cls(**own, looks_ahead=bool(lookahead))


class Means(NamedTuple):
    """What holds over all tokens. `regimes` has each one's share and mean restored weight, as training logs them."""

    regimes: dict[str, Any]
    deciles: EntropyDeciles
    positions: PositionProfile


class Mechanism(NamedTuple):
    """The numbers of every token and what holds on the mean, NumPy arrays.

    `regime_BT` are the codes of `token_regimes`. Entropies are in nats; divided by `normaliser_B1` they are what the
    gate sees and what the two `thresholds` are quantiles of. `update_BT` is w times the omega that the update is gated
    with. `errors` are the standard errors of `means`, from resampled completions under
    the same H_max.
    """

    mask_BT: Any
    entropy_BT: Any
    entropy_lookahead_BT: Any
    delta_BT: Any
    weight_BT: Any
    gate_BT: Any
    gate_lookahead_BT: Any
    update_BT: Any
    regime_BT: Any
    normaliser_B1: Any
    thresholds: Any
    means: Means
    errors: Means

    def regime_rows(self) -> list[dict[str, Any]]:
        """Regime, tokens, share and mean restored weight with their errors, in the order in which they are shown."""
        mean, error = self.means.regimes, self.errors.regimes
        return [
            {
                "regime": name,
                "tokens": int((self.regime_BT == REGIME_NAMES.index(name)).sum()),
                "share": float(mean[f"{name}_share"]),
                "share_error": float(error[f"{name}_share"]),
                "restored_weight": float(mean[f"{name}_restored"]),
                "restored_weight_error": float(error[f"{name}_restored"]),
            }
            for name in ORDER
        ]

    def decile_rows(self) -> list[dict[str, Any]]:
        """Decile (1 has the least entropy), tokens, its largest entropy, mean |delta| and mean |w omega|."""
        return _numbered("decile", self.means.deciles, self.errors.deciles)

    def position_rows(self) -> list[dict[str, Any]]:
        """Tenth of the completion, tokens, and the means of entropy, delta and w omega."""
        return _numbered("tenth", self.means.positions, self.errors.positions)


def measure(
    student_logp: Sequence[Sequence[float]],
    teacher_logp: Sequence[Sequence[float]],
    teacher_entropy: Sequence[Sequence[float]],
    advantage: Sequence[float],
    study: Study,
    vocab_size: int,
) -> Mechanism:
    """All of it for completions of any lengths, one list of nats each; together they are the batch of the gate's H_max
    and of every quantile."""
    lengths = [len(logp) for logp in student_logp]
    mask_BT = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]

    def padded(ragged: Sequence[Sequence[float]]) -> np.ndarray:
        array_BT = np.zeros(mask_BT.shape, np.float32)
        array_BT[mask_BT] = np.concatenate([np.asarray(row, np.float32) for row in ragged])
        return array_BT

    measured = _measure(
        padded(student_logp),
        padded(teacher_logp),
        padded(teacher_entropy),
        np.asarray(advantage, np.float32),
        mask_BT,
        study=study,
        vocab_size=vocab_size,
    )
    return jax.tree.map(np.asarray, measured)


@partial(jax.jit, static_argnames=("study", "vocab_size"))
def _measure(student_BT, teacher_BT, entropy_BT, advantage_B, mask_BT, *, study: Study, vocab_size: int) -> Mechanism:
    scale: dict[str, Any] = {"scope": study.scope, "denominator": study.denominator, "vocab_size": vocab_size}
    weights: dict[str, Any] = {"gamma": study.gamma, "floor": study.floor, **scale}
    here = gate(entropy_BT, mask_BT, **weights)
    ahead = gate(entropy_BT, mask_BT, window=study.window, **weights)
    delta_BT = teacher_BT - student_BT
    weight_BT = jnp.where(mask_BT, ratio_weight(student_BT, teacher_BT, advantage_B, epsilon=study.epsilon), 0.0)
    update_BT = weight_BT * (ahead if study.looks_ahead else here).omega_BT
    quantiles: dict[str, Any] = {"low_quantile": LOW_QUANTILE, "high_quantile": HIGH_QUANTILE}
    largest = ahead.normaliser if study.scope == "batch" else None

    def means(entropy_BT, delta_BT, update_BT, mask_BT) -> Means:
        return Means(
            regime_metrics(entropy_BT, mask_BT, window=study.window, entropy_max=largest, **weights, **quantiles),
            entropy_deciles(entropy_BT, delta_BT, update_BT, mask_BT),
            position_profile(entropy_BT, delta_BT, update_BT, mask_BT),
        )

    columns = entropy_BT, delta_BT, update_BT, mask_BT
    key = key_for(jax.random.key(0), Use.RESAMPLING)
    rows_RB = jax.random.randint(key, (RESAMPLES, len(mask_BT)), 0, len(mask_BT))
    resampled = jax.lax.map(lambda rows_B: means(*(column[rows_B] for column in columns)), rows_RB)
    return Mechanism(
        mask_BT=mask_BT,
        entropy_BT=entropy_BT,
        entropy_lookahead_BT=ahead.entropy_BT,
        delta_BT=delta_BT,
        weight_BT=weight_BT,
        gate_BT=here.omega_BT,
        gate_lookahead_BT=ahead.omega_BT,
        update_BT=update_BT,
        regime_BT=token_regimes(entropy_BT, mask_BT, window=study.window, entropy_max=ahead.normaliser, **quantiles),
        normaliser_B1=jnp.broadcast_to(ahead.normaliser, (mask_BT.shape[0], 1)),
        thresholds=masked_quantile(entropy_BT / ahead.normaliser, mask_BT, jnp.array([LOW_QUANTILE, HIGH_QUANTILE])),
        means=means(*columns),
        errors=jax.tree.map(lambda values: jnp.std(values, axis=0), resampled),
    )


def _numbered(name: str, columns: Any, errors: Any) -> list[dict[str, Any]]:
    """A row a bin, counted from 1, of a named tuple of arrays, and the standard error of every mean."""
    named = {column: values.tolist() for column, values in columns._asdict().items()}
    named |= {f"{column}_error": values.tolist() for column, values in errors._asdict().items() if "_mean" in column}
    bins = zip(*named.values(), strict=True)
    return [{name: number, **dict(zip(named, values, strict=True))} for number, values in enumerate(bins, start=1)]
