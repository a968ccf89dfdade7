"""A/B tests: plain tables of people (or of sums of people) with the arm each was assigned and what came of it, compared
arm by arm with the control; and how many people a test needs.
"""
