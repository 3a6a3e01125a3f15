"""What `jaccomp bench` measures: the rows, the peers, the machine's limits, and how each is timed.

Importing this package imports nothing: a process that measures first settles its threads and its allocator.
"""
