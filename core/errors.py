"""The sentences that a user gets instead of a traceback."""


class TrimtabError(Exception):
    """Something the user should read: one sentence that names the thing and the way out."""


class BadInput(TrimtabError):
    """The user's input cannot be used; the command line exits with 2."""


class Refused(TrimtabError):
    """A technique cannot be applied here, for the reason given; the trial is marked refused."""


class StoreError(TrimtabError):
    """The store cannot be opened, is held by another process, or is damaged."""
