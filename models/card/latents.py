"""What can be read from latents by themselves: linear probes on held-out questions, and whether they are alike. NumPy only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence

import numpy as np

FOLDS = 5
LEAST_OF_A_CLASS = 8
"""Questions below which a class is left out of a probe: no fold could learn it."""
JACKKNIFE = 20


def probe(latents: np.ndarray, labels: Sequence[Hashable | None], groups: Sequence[Hashable]) -> dict[str, list[list[int]]] | None:
    """Held-out hits of a linear (ridge) classifier on each latent: [S][n], and of always naming the commonest class.

    latents: [n, S, D]. labels: None for a question that is left out. groups: questions that share a picture or a pair lie in
    one fold. Returns {"kept": [n'], "hits": S lists of n', "chance": one list of n'}; None for fewer than two classes.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts: dict[Hashable, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    kept = [at for at, label in enumerate(labels) if label is not None and counts[label] >= LEAST_OF_A_CLASS]
    y = np.array([str(labels[at]) for at in kept])
    index: dict[Hashable, int] = {}
    fold_groups = np.array([index.setdefault(groups[at], len(index)) for at in kept])
    if len(set(y.tolist())) < 2 or len(index) < FOLDS:
        return None
    splits = list(GroupKFold(FOLDS).split(y, y, fold_groups))
    hits = np.zeros((latents.shape[1], len(y)), dtype=int)
    chance = np.zeros(len(y), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant latents make ridge's equations singular; its answer is then a constant
        for train, test in splits:
            names, sizes = np.unique(y[train], return_counts=True)
            chance[test] = y[test] == names[sizes.argmax()]
            for step in range(latents.shape[1]):
                model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 6)))
                model.fit(latents[kept, step][train], y[train])
                hits[step, test] = model.predict(latents[kept, step][test]) == y[test]
    return {"kept": kept, "hits": hits.tolist(), "chance": [chance.tolist()]}


def place(box: Sequence[float] | None, cells: int = 3) -> int | None:
    """Number of the cell, of cells x cells, that the box's centre lies in."""
    if box is None:
        return None
    x, y = (min(int((box[at] + box[at + 2]) / 2 * cells), cells - 1) for at in (0, 1))
    return y * cells + x


def alike(latents: np.ndarray, groups: Sequence[Hashable]) -> dict[str, object]:
    """Cosine of each question's latents with those of questions on other pictures (mean over steps and partners), and the
    effective rank of each step's latents, exp of the entropy of their centred spectrum (Roy and Vetterli 2007), with its
    jackknife standard error over JACKKNIFE parts.

    latents: [n, S, D] -> {"cosine": [n], "effective_rank": float, "effective_rank_se": float, "most": the largest rank possible}.
    """
    index: dict[Hashable, int] = {}
    numbers = np.array([index.setdefault(group, len(index)) for group in groups])
    other = numbers[:, None] != numbers[None, :]
    unit = latents / np.maximum(np.linalg.norm(latents, axis=-1, keepdims=True), 1e-12)
    similar = np.einsum("isd,jsd->ij", unit, unit) / latents.shape[1]
    cosine = (similar * other).sum(1) / np.maximum(other.sum(1), 1)
    ranks = [_mean_rank(latents[numbers % JACKKNIFE != part]) for part in range(min(JACKKNIFE, len(index)))]
    parts = len(ranks)
    spread = math.sqrt((parts - 1) / parts * float(((np.array(ranks) - np.mean(ranks)) ** 2).sum())) if parts > 1 else math.nan
    return {
        "cosine": cosine.tolist(),
        "effective_rank": _mean_rank(latents),
        "effective_rank_se": spread,
        "most": int(min(len(latents) - 1, latents.shape[2])),
    }


def _mean_rank(latents: np.ndarray) -> float:
    return float(np.mean([effective_rank(latents[:, step]) for step in range(latents.shape[1])]))


def effective_rank(vectors: np.ndarray) -> float:
    """Of vectors [n, D] around their mean; 0 where all are equal."""
    centred = vectors - vectors.mean(0)
    small = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    values = np.clip(np.linalg.eigvalsh(small), 0, None)
    if values.sum() <= 1e-12 * max(float((vectors**2).sum()), 1e-30):
        return 0.0
    shares = np.sqrt(values) / np.sqrt(values).sum()
    shares = shares[shares > 0]
    return float(math.exp(-(shares * np.log(shares)).sum()))
