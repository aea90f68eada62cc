"""`python -m core.measure.study` as a box without the dashboard runs it, with a preset that
measures little: what only the dashboard has cannot be imported, in this process and in the trials'.

    PYTHONPATH=<folder with sitecustomize.py> python tests/core/measure/study/box.py PLAN OUT ...
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from core.measure.child.spawn import Spawned
from core.measure.study import __main__ as command
from core.measure.study.run import StudyRun

WORKER = Path(__file__).parents[3] / "app" / "jobs" / "brief_worker.py"
ABSENT = ("sqlalchemy", "duckdb", "duckdb_sqlalchemy", "alembic", "streamlit", "plotly", "pandas",
          "pyarrow", "jinja2", "starlette", "app", "store")  # fmt: skip
# Into a folder of PYTHONPATH, so that the children meet it too.
SITE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"a box has no {{name}}", name=name)

sys.meta_path.insert(0, Absent())
"""

if __name__ == "__main__":
    brief = partial(Spawned, command=(sys.executable, str(WORKER)))
    command.StudyRun = partial(StudyRun, starter=brief)  # type: ignore[misc,assignment]
    sys.exit(command.main())
