"""Models larger than the memory of a GPU, against its ceilings and against other tools.

`python -m benchmarks.gpu --help`; each measurement runs in a process of its own.
"""
