"""Run the command line: `python -m dockertest`."""

import sys

from dockertest._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
