"""Owns taking numbers: timing, memory, energy, quality, the environment they were taken in.
Chooses nothing.

The files that need torch are imported by the worker alone; this face imports nothing.
"""
