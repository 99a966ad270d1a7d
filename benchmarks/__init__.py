"""Benchmarks: each a ratio measured in one run. `python -m benchmarks --help`; README.md says against what."""
