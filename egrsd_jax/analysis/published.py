"""The mechanism figures that the paper prints (arXiv 2605.13255), beside which ours stand where model and regime are
the same."""

from pathlib import Path

from egrsd_jax.analysis.mechanism import Study
from egrsd_jax.config import Config

# The study has gamma .3 and W 5, and of the models with printed results only this one is trained with that pair.
MODEL = "Qwen3-8B"
DATA = "siyanzhao/Openthoughts_math_30k_opsd"
SHARES = {"lock": 0.500, "mid": 0.270, "pivot": 0.209, "fork": 0.021}
RESTORED = {"lock": "<0.001", "mid": "0.040", "pivot": "0.111", "fork": "0.053"}
DELTAS = {1: 0.0024, 10: 0.329}  # mean |delta| of the first and the last decile, nats


def is_papers(config: Config, study: Study) -> bool:
    """Whether an analysis looks at what the paper's study looked at, so that their figures can be compared."""
    gate = study.gamma, study.window, study.epsilon, study.floor, study.scope, study.denominator
    return (
        Path(config.model.path).name == MODEL
        and config.data.path == DATA
        and gate == (0.3, 5, 0.2, 0.1, "batch", "raw")
        and (config.method.teacher or "frozen") == "frozen"
        and (config.method.privilege or "reference") == "reference"
    )
