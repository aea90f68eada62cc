"""Output for every terminal: signs that its encoding lacks are written in other words, never an
error; names of files are UTF-8 whatever the locale says.
"""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata

HANDLER = "trimtab"
PLAIN = {
    "·": "-", "—": "-", "–": "-", "−": "-", "⁻": "-", "…": "...", "≤": "<=", "≥": ">=", "≈": "~",
    "µ": "u", "×": "x", "→": "->", "°": " deg", "▲": "^", "▼": "v", "●": "*", "✓": "+", "✕": "x",
    "⊘": "/", "■": "#", "▸": ">", "‖": "||", "↻": "@", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def stand_in(error: UnicodeError) -> tuple[str, int]:
    """ASCII for what could not be encoded, for codecs.register_error."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(sign: str) -> str:
    if sign in PLAIN:
        return PLAIN[sign]
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", sign) if letter.isascii())
    return letters or ascii(sign)[1:-1]


def take_any_sign() -> None:
    """Let stdout and stderr take every text; their encodings stay."""
    codecs.register_error(HANDLER, stand_in)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def read_names_as_utf8() -> None:
    """Begin again in Python's UTF-8 mode, children included, where the locale (C, Latin-1) would
    misread the names of files; stdout and stderr keep the terminal's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stdout, "encoding", None) or "ascii")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
