"""What a report could have shown: the smallest difference that its test finds four times in five."""

from __future__ import annotations

import math
from dataclasses import replace

from harness.stats.intervals import Variance
from harness.stats.seeds import SeedNoise

POWER = 0.8
FEW_SEEDS = 0.08
"""Added to the power aimed at where seed noise counts: its estimate varies from run to run, and without this the stated
difference was shown 67 to 75 times in 100 with two or three seeds, with .05 74 times on draws that it was not chosen on
(`benchmarks/statistics.md` has what it is with it)."""


def smallest_shown(
    variance: Variance, family: int = 1, *, noise: SeedNoise | None = None, power: float = POWER, level: float = 0.95
) -> float:
    """The true difference that is shown with probability `power`, as a fraction.

    variance: of a comparison of this kind, which holds questions, clusters, seeds and noise. family: comparisons that the
    correction counts; each must reach (1 - level) / family, as Holm's first does. noise: of one seed, where the comparison
    has a single one and is to be about recipes.
    """
    if noise is not None and variance.noise is None:
        variance = replace(variance, noise=noise)
    power += FEW_SEEDS * (variance.noise is not None)
    needed = variance.quantile(1 - (1 - level) / family) + variance.quantile(2 * power - 1)
    return needed * math.sqrt(variance.total)
