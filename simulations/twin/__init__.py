"""Twin of an app: a scenario fitted to what its service logged, with draws of whole scenarios that the log allows.

`fit` makes it, `judgement` tests it on the part of the log that it did not see.
"""
