"""Contenders: what plays in a simulation in place of the service's policies: bandits of other libraries (`peers`), and
Python of one's own (`own_code`).
"""
