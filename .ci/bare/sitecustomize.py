"""Makes this environment look like a GPU box: what only the dashboard and the tests need is absent.
Python imports it at its start where this folder is in PYTHONPATH.
"""

import sys

ABSENT = (
    "duckdb", "hypothesis", "lm_eval", "matplotlib", "pandas", "plotly", "psycopg", "pyarrow",
    "scipy", "sklearn", "sqlalchemy", "streamlit",
)  # fmt: skip

sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
