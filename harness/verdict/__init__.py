"""What may be claimed: a cell against the value a paper reports, and the paper's sentences against numbers.

Judges; computes no statistics of its own (that is `harness.stats`) and reads no files. A verdict always comes with the
arithmetic that led to it. Values here are percentages and percentage points, as papers print them.
"""

from harness.verdict.cells import DELTA, Outcome, Verdict, judge
from harness.verdict.claims import ClaimResult, Holds, judge_measured, judge_reported
from harness.verdict.granularity import Granularity, granularity

__all__ = [
    "DELTA",
    "ClaimResult",
    "Granularity",
    "Holds",
    "Outcome",
    "Verdict",
    "granularity",
    "judge",
    "judge_measured",
    "judge_reported",
]
