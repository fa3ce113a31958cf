"""What can be said from answers to questions: intervals, paired tests, seeds, power.

Knows nothing about tables, jobs or files. Everything is a fraction between 0 and 1 (never per cent). Two kinds of noise
are kept apart: *item noise* (other questions could have been asked; questions about one image belong together) and *seed
noise* (the training could have been run with another seed). With one seed the second is unknown, not zero, and every
result says so.
"""

from harness.stats.answers import Answers, UnmatchedIds, align
from harness.stats.intervals import Estimate, Interval, binomial_tail, estimate, wilson
from harness.stats.paired import Comparison, compare, holm, mcnemar_exact, sign_flip
from harness.stats.power import Decision, questions_or_seeds
from harness.stats.seeds import SeedNoise, families

__all__ = [
    "Answers",
    "Comparison",
    "Decision",
    "Estimate",
    "Interval",
    "SeedNoise",
    "UnmatchedIds",
    "align",
    "binomial_tail",
    "compare",
    "estimate",
    "families",
    "holm",
    "mcnemar_exact",
    "questions_or_seeds",
    "sign_flip",
    "wilson",
]
