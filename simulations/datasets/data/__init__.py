"""Data files that the package needs at run time, each with its licence beside it. Read through
`importlib.resources`.
"""
