"""Alarms about nudges and stages: a guardrail metric above its bound, exploration that has collapsed, and outcomes that
have stopped. Pure statistics; who asks for them decides what follows.
"""
