"""The door: `python run.py experiments/table3c.yaml`. `python run.py --help` lists what else it does."""

import sys

from harness.cli import main

if __name__ == "__main__":
    sys.exit(main())
