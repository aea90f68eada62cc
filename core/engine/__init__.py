"""Owns running a model: decoders, caches, generation, speculation. Loads no files.

The files that need torch are imported by the callers that use them; this face imports nothing.
"""
