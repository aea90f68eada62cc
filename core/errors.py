"""The sentences that a user gets instead of a traceback."""

LONGEST = 2000


class TrimtabError(Exception):
    """Something the user should read: one sentence that names the thing and the way out.

    Names of files, tensors and studies come from elsewhere: what cannot be printed is escaped.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(one_line(sentence))


class BadInput(TrimtabError):
    """The user's input cannot be used; the command line exits with 2."""


class Refused(TrimtabError):
    """A technique cannot be applied here, for the reason given; the trial is marked refused."""


class StoreError(TrimtabError):
    """The store cannot be opened, is held by another process, or is damaged."""


class StoreHeld(StoreError):
    """Another process has the store open; `pid` is its number."""

    def __init__(self, sentence: str, pid: int) -> None:
        super().__init__(sentence)
        self.pid = pid


class StoreDamaged(StoreError):
    """The store's file or its log cannot be read any more; the journals can make it again."""


def one_line(text: object) -> str:
    """`text` in one line of printable characters, the others escaped; of more than 2,000 the
    middle is left out.
    """
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in plain)
    return plain if len(plain) <= LONGEST else f"{plain[:1000]}…{plain[1001 - LONGEST :]}"
