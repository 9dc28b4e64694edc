"""What offloading costs here: weights in slices, recomputed context, weights from a disk.

`python -m benchmarks.offload --help`; each part runs in a process of its own.
"""
