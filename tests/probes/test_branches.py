"""Where branches are taken."""

from collections import Counter

import numpy as np

from egrsd_jax.probes.branches import choose_branches

SOURCE = np.random.default_rng(0)
ENTROPIES = [SOURCE.exponential(size=30), SOURCE.exponential(size=60)]
ALTERNATIVES = [np.arange(30), np.where(np.arange(60) % 7 == 0, -1, np.arange(60))]


def test_sure_and_unsure_places_and_thirds_are_taken_alike():
    chosen = choose_branches(ENTROPIES, ALTERNATIVES, 12)
    assert len({(each.completion, each.place) for each in chosen}) == 12
    places = [e[i] for e, a in zip(ENTROPIES, ALTERNATIVES, strict=True) for i in range(len(e) - 2) if a[i] >= 0]
    bar = np.quantile(places, 0.8)
    assert set(Counter((each.entropy > bar, int(3 * each.position)) for each in chosen).values()) == {2}
    for each in chosen:
        assert each.entropy == ENTROPIES[each.completion][each.place]
        assert each.position == each.place / len(ENTROPIES[each.completion])
        assert each.token == ALTERNATIVES[each.completion][each.place] >= 0
        assert each.place < len(ENTROPIES[each.completion]) - 2


def test_the_same_seed_takes_the_same_and_there_are_no_more_than_there_are():
    assert choose_branches(ENTROPIES, ALTERNATIVES, 9) == choose_branches(ENTROPIES, ALTERNATIVES, 9)
    assert len(choose_branches(ENTROPIES, ALTERNATIVES, 1000)) == 28 + 58 - 9
    assert choose_branches(ENTROPIES, ALTERNATIVES, 0) == []
    assert choose_branches([np.ones(2)], [np.ones(2)], 5) == []
