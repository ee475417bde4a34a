"""When a copy of the student is earned, when a teacher retires, and a teacher that is mixed with the base."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.config import Config, LoraSettings
from egrsd_jax.model.lora import Lora
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.policy import Policy
from egrsd_jax.train.state import Learned, kept_weights, mixed, next_teacher, watch_of
from egrsd_jax.train.watch import Seen, first_watch, next_watch


def seen(reward: float, length: float, gap: float = 1.0) -> Seen:
    return Seen(*map(jnp.float32, (reward, length, gap)))


def earned(settings, steps):
    """Which of the steps earn the teacher a copy."""
    watch, copies = first_watch(), []
    for step in steps:
        watch, copy = jax.jit(next_watch, static_argnums=2)(watch, step, settings)
        copies.append(bool(copy))
    return copies


def test_a_copy_is_earned_where_reward_rose_and_length_is_bounded():
    """Periods of two steps: the mark, better, better but longer, better and as long as may be, not better."""
    settings = method_settings("egrsd", teacher="earned", teacher_every=2, teacher_growth=0.5)
    periods = [(0.2, 10), (0.3, 10), (0.5, 16), (0.4, 15), (0.4, 15)]
    steps = [seen(reward + sign, length) for reward, length in periods for sign in (-0.1, 0.1)]
    assert earned(settings, steps) == [False, False, False, True, False, False, False, True, False, False]


def test_the_first_period_earns_nothing_however_good():
    settings = method_settings("egrsd", teacher="earned", teacher_every=1)
    assert earned(settings, [seen(1.5, 3)]) == [False]


def test_a_teacher_retires_when_the_gap_has_no_new_least_for_so_long_and_stays_so():
    settings = method_settings("egrsd", retire_after=3)
    watch, retired = first_watch(), []
    for gap in [2.0, 1.0, 1.0, 3.0, 3.0, 3.0, 0.0, 0.0]:
        watch, _ = next_watch(watch, seen(0.0, 1.0, gap), settings)
        retired.append(int(watch.retired))
    assert retired == [0, 0, 0, 0, 0, 1, 1, 1]


def test_a_teacher_that_is_watched_keeps_its_weights_until_a_copy_is_earned():
    settings = method_settings("egrsd", teacher="earned", teacher_every=1)
    old, new = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
    learned = Learned(new, (), {"weights": old, "watch": first_watch()})
    for reward, value in ((0.1, 0.0), (0.1, 0.0), (0.2, 1.0)):
        kept = next_teacher(learned, new, jnp.int32(0), settings, seen(reward, 5))
        learned = learned._replace(teacher=kept)
        np.testing.assert_array_equal(kept_weights(learned)["w"], np.full(3, value))
    assert watch_of(learned) is not None
    assert watch_of(Learned(new, (), old)) is None


def test_a_mixed_teacher_is_between_the_base_and_the_student():
    base, own = {"w": jnp.float32([0.0, 4.0])}, {"w": jnp.float32([2.0, 8.0])}
    np.testing.assert_array_equal(mixed(Policy(own, None), base, 0.25).params["w"], np.float32([0.5, 5.0]))
    adapter = Policy(base, Lora({}, scale=2.0))
    assert mixed(adapter, base, 0.25).lora.scale == 0.5  # pyright: ignore[reportOptionalMemberAccess]
    assert mixed(adapter, base, 1.0) is adapter


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher_mix": 0.5}, "teacher_mix is 0.5, and a teacher that is frozen has no use for it"),
        ({"teacher": "copy", "teacher_growth": 0.1}, "set method.teacher to earned"),
        ({"teacher": "copy", "teacher_mix": 0.0}, "method.teacher_mix is 0.0; it must be over 0 and at most 1"),
        ({"retire_after": -1}, "method.retire_after is -1; it must be at least 0"),
    ],
)
def test_settings_of_teachers_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        method_settings("egrsd", **given)


def test_an_adapter_that_is_trained_further_is_not_mixed():
    method = method_settings("egrsd", teacher="ema", teacher_mix=0.5)
    with pytest.raises(ValueError, match="which mixes the teacher with the base"):
        Config(method=method, lora=LoraSettings(path="adapter"))
