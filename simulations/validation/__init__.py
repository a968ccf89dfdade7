"""How far a scenario can be trusted: calibration, realism, sensitivity, the best that is possible."""
