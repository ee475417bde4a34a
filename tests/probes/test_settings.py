"""Settings of probes that make no sense are refused, by name."""

import pytest

from egrsd_jax.config import Config
from egrsd_jax.probes.settings import ProbeSettings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 0}, "probes.window is 0; it must be at least 1"),
        ({"early_within": 1.5}, "probes.early_within is 1.5; it must be between 0 and 1"),
        ({"hesitation_rise": 0.5}, r"probes.hesitation_rise is 0.5; it must be at least 1 \(null never alarms\)"),
        ({"cut_off_excess": float("nan")}, "probes.cut_off_excess is nan"),
        ({"style": ()}, "probes.style has an empty phrase, or none"),
        ({"mentions": ("a", " ")}, "probes.mentions has an empty phrase, or none"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(probes=ProbeSettings(**fields))
