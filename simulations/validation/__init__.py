"""Validation of scenarios, i.e. how far they can be trusted: calibration, realism, sensitivity, the best that is
possible (`dynamic_program`), and what a nudge really adds (`incrementality`).
"""
