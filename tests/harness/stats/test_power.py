from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulated_tables import World, power
from harness.stats import SeedNoise, smallest_shown
from harness.stats.intervals import Variance

ITEMS = Variance(item=4e-4, noise=None, residual=0.0, clusters=1000, seeds=1)


def test_the_smallest_shown_difference_is_the_textbooks_for_one_test_and_grows_with_the_family():
    assert smallest_shown(ITEMS) == pytest.approx((1.96 + 0.84) * 0.02, rel=0.01)
    assert smallest_shown(ITEMS, 21) > 1.3 * smallest_shown(ITEMS)


def test_the_seed_noise_of_others_widens_what_one_seed_could_show():
    noise = SeedNoise(((0.05**2, 20.0), (0.05**2, 20.0)))
    assert smallest_shown(ITEMS, noise=noise) > 3 * smallest_shown(ITEMS)
    several = Variance(4e-4, noise.times(1 / 3), 0.0, 1000, 3)
    assert smallest_shown(several, noise=noise) == smallest_shown(several), "several seeds need no others"


def test_the_stated_difference_is_found_about_four_times_in_five():
    stated, rate, rates = power(World(seeds=3, sd=1.0), 150)
    assert 0.65 <= rate <= 0.93 and 2 < stated < 10
    assert rates[10.0] >= rates[2.0]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_stated_difference_is_found_about_four_times_in_five_at_any_number_of_seeds(seeds):
    assert 0.68 <= power(World(seeds=seeds, sd=2.0), 800)[1] <= 0.92


def test_nothing_is_needed_where_nothing_varies():
    assert np.isfinite(smallest_shown(Variance(1e-9, SeedNoise(((0.0, 2.0),)), 0.0, 10, 3)))
