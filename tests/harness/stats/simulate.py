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


def trained(
    random: np.random.Generator,
    *,
    sds: tuple[float, ...],
    shared: tuple[int, int] = (0, 3),
    share: float = 0.7,
    redrawn: float = 0.1,
    mean: float = 0.6,
    images: int = 500,
    per_image: int = 2,
    seeds: int = 3,
) -> list[list[Answers]]:
    """Rows that are all equal in truth, of models that mostly agree on a question, as trainings from one base do.

    sds: of each row's run's shift. shared: two rows of which one continues the other's training; `share` of their shifts'
    variance is common. redrawn: the part of questions that a run answers independently of the others; they alone add about
    0.5 points of noise between seeds.
    """
    n = images * per_image
    ids, names = tuple(range(n)), tuple(np.arange(images).repeat(per_image).tolist())
    hard = random.random(images).repeat(per_image)
    common, own = _bounded(random, (seeds,)), _bounded(random, (len(sds), seeds))
    rows = []
    for row, sd in enumerate(sds):
        shifts = own[row] if row not in shared else share**0.5 * common + (1 - share) ** 0.5 * own[row]
        runs = []
        for shift in shifts:
            draws = np.where(random.random(n) < redrawn, random.random(n), hard)
            runs.append(Answers(ids, names, (draws < mean + sd * shift).astype(float)))
        rows.append(runs)
    return rows


def _bounded(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, each within four standard deviations, so that no chance leaves 0 to 1."""
    return np.clip(random.normal(size=shape), -4, 4)
