"""The command line: `dockertest`, or `python -m dockertest`."""
