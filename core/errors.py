"""Owns the exceptions that carry one sentence for the user. It formats nothing and catches nothing."""


class TrimtabError(Exception):
    """Something went wrong that the user can be told in one sentence."""


class BadInput(TrimtabError):
    """The user's input cannot be honoured; the sentence names the file, field or flag and the way out."""
