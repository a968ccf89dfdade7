"""Background learning: the writer thread, which groups writes, and the learner in it, which settles decisions that
matured and publishes what was learned.
"""
