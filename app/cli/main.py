"""`trimtab ...`: the same flow as the dashboard, without a browser. Progress to stderr, results to
stdout.

Exit codes: 0 done, 1 a trial failed, 2 bad input (one sentence on stderr). The words are in
grammar.py, what they do is found by dispatch.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from app.cli import terminal
from app.cli.grammar import parser
from core.errors import TrimtabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the entry point of the console script."""
    if arguments is None:
        terminal.read_names_as_utf8()
    terminal.take_any_sign()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words = ["serve", *words]
    parsed = parser().parse_args(words)
    if parsed.store:
        os.environ["TRIMTAB_STORE"] = parsed.store
    # Only now: --help and a wrong word must not wait for what the commands need.
    from app.cli.dispatch import dispatch

    try:
        return dispatch(parsed)
    except TrimtabError as error:
        print(f"trimtab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trimtab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
