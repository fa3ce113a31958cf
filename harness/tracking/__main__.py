"""`python -m harness.tracking RESULTS [NICENESS]`: copy a results folder to MLflow until standard input ends."""

import sys

from harness.outgoing import guarded
from harness.tracking.follow import follow

if __name__ == "__main__":
    with guarded():
        sys.exit(follow(sys.argv[1], *map(int, sys.argv[2:])))
