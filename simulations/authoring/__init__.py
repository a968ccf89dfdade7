"""Authoring of scenarios: a first one for any catalogue (`draft`), and every mistake of a file with its line (`checks`).
"""
