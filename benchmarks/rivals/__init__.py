"""A program per rival: it loads, warms up, runs the whole job once and prints what came of it.

Every one is run in a process of its own, on the same prompts. The clock runs from prompts in
memory to the last token; loading, compilation and a warm-up on a part of the prompts are outside.
"""
