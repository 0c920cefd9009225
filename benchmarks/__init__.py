"""
How good, how fast, compared with what: ``python -m benchmarks``. Never shipped.

``suite`` says what a run does; ``workloads`` makes the files, ``peers/`` tag them, ``measure`` interleaves the
peers, ``accuracy`` and ``neighbours`` look at the entities, ``checks`` judge the figures, ``report`` writes them.
"""
