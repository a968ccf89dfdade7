"""Authoring of scenarios: a draft for any catalogue (`draft`), and every mistake of a file with its line (`checks`)."""
