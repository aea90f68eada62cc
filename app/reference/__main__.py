"""`python -m app.reference RESULTS ...`: make the package of reference studies that ships with the
next version from what tests/evidence/gpu/run.sh left on a machine with a GPU; then commit it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.reference.making import make
from app.reference.package import DATA
from core.errors import TrimtabError


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the package was written, 2 with a sentence when it was not."""
    parser = argparse.ArgumentParser(prog="python -m app.reference", description=__doc__)
    parser.add_argument(
        "results", nargs="+", help="folders that run.sh wrote, or their journals.tar.gz"
    )
    parser.add_argument("-o", "--output", default=str(DATA), help="default: where it ships from")
    parsed = parser.parse_args(arguments)
    try:
        shipped = make([Path(place) for place in parsed.results], Path(parsed.output))
    except (TrimtabError, OSError) as error:
        print(f"not made: {error}", file=sys.stderr)
        return 2
    print(f"{shipped.line}: {len(shipped.studies)} studies in {parsed.output}")
    for study in shipped.studies:
        print(f"  {study.id}  {study.title}: {study.trials} trials")
    return 0


if __name__ == "__main__":
    sys.exit(main())
