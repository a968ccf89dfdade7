"""Reports for people: the frozen `Report`, reviews of live policies, comparisons of simulated ones, their figures and
their HTML page.
"""
