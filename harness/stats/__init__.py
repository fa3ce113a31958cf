"""Statistics of answers to questions: intervals, paired tests, seeds, power.

Knows nothing about tables, jobs or files. Everything is a fraction between 0 and 1 (never per cent). Two kinds of noise
are kept apart: *item noise* (other questions could have been asked; questions about one image belong together) and *seed
noise* (the training could have been run with another seed). With one seed the second is unknown, not zero, and every
result says so.
"""

from harness.stats.answers import Answers, UnmatchedIds, align
from harness.stats.intervals import Estimate, Interval, binomial_tail, estimate, wilson
from harness.stats.paired import Comparison, Family, compare, contrast, holm, mcnemar_exact, sign_flip
from harness.stats.power import smallest_shown
from harness.stats.seeds import Prior, SeedNoise, families, one_a_family

__all__ = [
    "Answers",
    "Comparison",
    "Estimate",
    "Family",
    "Interval",
    "Prior",
    "SeedNoise",
    "UnmatchedIds",
    "align",
    "binomial_tail",
    "compare",
    "contrast",
    "estimate",
    "families",
    "holm",
    "mcnemar_exact",
    "one_a_family",
    "sign_flip",
    "smallest_shown",
    "wilson",
]
