"""Figures of the planner: what is predicted and chosen, against spaces of plans that were measured
one by one.
"""
