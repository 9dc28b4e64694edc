"""Measurements against other tools on the same job; see `python -m benchmarks.NAME --help`."""
