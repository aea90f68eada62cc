"""Owns getting a model from a folder, a hub or a shape into an engine, refusing damaged input with a sentence.

`preflight` reads no weights and imports no torch; `load` builds the engine.
"""
