"""Answers with a known truth: questions of unequal difficulty, questions that share an image, seeds that differ."""

from __future__ import annotations

import numpy as np

from harness.stats import Answers


def study(
    random: np.random.Generator,
    *,
    means: tuple[float, ...],
    clusters: int = 100,
    per_cluster: int = 3,
    seeds: int = 1,
    image_sd: float = 0.2,
    seed_sd: float = 0.0,
) -> list[list[Answers]]:
    """Per row (one of `means`), `seeds` runs on the same questions.

    A question's chance of success is the row's mean + its image's shift (two-valued) + its run's shift (normal, within two
    and a half of its standard deviations); nothing is clipped, so the mean is the truth.
    """
    image = random.choice([-image_sd, image_sd], size=clusters).repeat(per_cluster)
    n = clusters * per_cluster
    ids, names = tuple(range(n)), tuple(np.arange(clusters).repeat(per_cluster).tolist())
    rows = []
    for mean in means:
        runs = []
        for _ in range(seeds):
            while abs(shift := random.normal(0, 1)) > 2.5:
                pass
            chance = mean + image + seed_sd * shift
            assert 0 <= chance.min() and chance.max() <= 1, "the simulation would clip, so its truth would be another"
            runs.append(Answers(ids, names, (random.random(n) < chance).astype(float)))
        rows.append(runs)
    return rows
