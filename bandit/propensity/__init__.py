"""Propensities: probabilities that each arm is drawn, their floor and transforms, and the draw. Pure; the same bits on
every processor.
"""
