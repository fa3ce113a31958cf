"""The door: `python run.py experiments/table3c.yaml`. `python run.py --help` lists what else it does."""

import sys

from harness.cli import main
from harness.outgoing import guarded

if __name__ == "__main__":
    with guarded():
        sys.exit(main())
