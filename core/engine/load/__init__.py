"""Owns getting a model from a folder, a hub or a shape into an engine; damaged input is refused.

`preflight` reads no weights and imports no torch; `load` builds the engine.
"""
