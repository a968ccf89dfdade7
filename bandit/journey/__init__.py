"""Journey of a user: events folded into a state, moments found in it, and decisions that events are
credited to. Pure.
"""
