"""Serving: a Server takes requests and gives tokens, an iteration at a time."""

# What a step of a server does: read prompts (or classify images), or go on with sequences.
PREFILL, DECODE = "prefill", "decode"
