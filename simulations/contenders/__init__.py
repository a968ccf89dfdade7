"""Contenders: what plays in a simulation in place of the service's own policies. Other people's libraries (`peers`), and
Python of one's own (`own_code`).
"""
