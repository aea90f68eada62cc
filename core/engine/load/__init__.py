"""Owns getting a model from a folder, a hub or a shape into an engine; damaged input is refused.

`load` imports no torch before something is loaded.
"""
