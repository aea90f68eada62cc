"""The steps of a trial, one file each, over what they share (context.py). core.measure.trial has
their order. Importing this imports no torch.
"""
