"""The arithmetic of reported tables: sums, differences, counts, repeated rows, and what the text says of them.

Reads spec files and nothing else: no results, no compute. Every finding states its arithmetic, and is one of three kinds:
an *error* contradicts itself under every honest way of rounding and averaging in `explain`; a *conditional* finding is
right only under the condition it names; a *remark* is surprising, or a slip of printing. A rule that would call an error
what one of these ways explains is wrong.
"""

from harness.audit.findings import Audit, Basis, Finding, Severity
from harness.audit.paper import Paper, read_paper
from harness.audit.rules import RULES, audit

__all__ = ["RULES", "Audit", "Basis", "Finding", "Paper", "Severity", "audit", "read_paper"]
