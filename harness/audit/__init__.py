"""The arithmetic of reported tables: sums, differences, counts, repeated rows, and what the text says of them.

Reads spec files and nothing else: no results, no compute. Every finding states its arithmetic, and is one of three kinds:
an *error* contradicts itself under every way of rounding; a *conditional* finding needs the assumption it names; a *flag*
is surprising, not contradictory. A rule that would accuse a table which some honest way of printing explains is wrong.
"""

from harness.audit.findings import Audit, Finding, Severity
from harness.audit.paper import Paper, read_paper
from harness.audit.rules import RULES, audit

__all__ = ["RULES", "Audit", "Finding", "Paper", "Severity", "audit", "read_paper"]
