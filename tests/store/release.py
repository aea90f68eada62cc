"""Freezes what a released store holds, and writes such a store again for the newest code to open.

    python tests/store/release.py freeze            before a release: fixtures/REVISION.{sql,json}
    python tests/store/release.py write 0001 FILE   a store as the release with that schema left it

The schema is made by that release's migrations, the rows by plain SQL, so that nothing of today's
code has a hand in it. The .json holds how many rows each table has, a SHA-256 of their content,
and what the release itself answered when it was asked.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FIXTURES = HERE / "fixtures"
sys.path.insert(0, str(HERE.parents[1]))


def write(revision: str, path: Path) -> None:
    """A store of schema `revision` at `path`, which must not exist."""
    import duckdb_sqlalchemy.alembic_impl  # noqa: F401
    from alembic import command
    from alembic.config import Config

    from store import migrate
    from store.engine import connect

    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS).replace("%", "%%"))
    engine = connect(path)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with engine.begin() as connection:
        for statement in statements(revision):
            connection.exec_driver_sql(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("checkpoint")
    engine.dispose()


def statements(revision: str) -> list[str]:
    """The frozen rows, one statement each; a line break in a text is written as chr(10)."""
    return (FIXTURES / f"{revision}.sql").read_text(encoding="utf-8").split("\n")[1:-1]


def expected(revision: str) -> dict[str, Any]:
    """What the release held and answered."""
    found = json.loads((FIXTURES / f"{revision}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def content(path: Path, columns: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Row count and SHA-256 of those columns of those tables, by DuckDB alone."""
    import duckdb

    found = {}
    with duckdb.connect(str(path), read_only=True) as connection:
        for table, names in columns.items():
            query = f"select {', '.join(names)} from {table} order by all"
            rows = connection.execute(query).fetchall()
            text = "\n".join(repr(row) for row in rows)
            digest = hashlib.sha256(text.encode()).hexdigest()
            found[table] = {"columns": names, "rows": len(rows), "sha256": digest}
    return found


def fill(store: Any, make: Any) -> None:
    """Something of everything that can be kept."""
    import dataclasses

    from core.journal import events
    from core.report import Report

    store.ingest(make.whole("s-1")[1])
    study = store.study("s-1")
    store.ingest(make.story(study, study.trials[1], attempt=2, state="failed"))
    store.ingest(make.story(study, study.trials[2], attempt=2)[:6])
    hostile = 'it\'s "quoted"; --\n\tü 世界 🧪 \\ %s :name $1'
    odd = make.study("s-3", case=make.case(title=hostile), preset=hostile, reason=hostile)
    trial = dataclasses.replace(
        make.trial(odd, "s-3-t0", "weight-int8"), state="refused", reason=hostile, notes=(hostile,)
    )
    store.ingest([events.study_created(odd), events.trial_queued(trial)])
    for version in (1, 2):
        store.save_report(
            Report("r-1", version, f"{version} {hostile}", study, ("s-1-t0",), "s-1-t0", study.id)
        )


def answers(store: Any) -> dict[str, Any]:
    """What the store says, as JSON."""
    from core.journal import codec
    from store import TrialFilter

    ids = [one.id for one in store.studies()]
    return {
        "studies": [vars(one) for one in store.studies()],
        "whole": {study_id: codec.dumps(store.study(study_id)) for study_id in ids},
        "rows": [
            # Origins are younger than the first fixtures.
            {key: value for key, value in row.items() if value is not None and key != "origins"}
            for row in json.loads(json.dumps(store.trial_rows(TrialFilter())))
        ],
        "progress": [vars(one) for study_id in ids for one in store.progress(study_id)],
        "environments": {"env-1": store.environment("env-1")},
        "reports": [codec.dumps(store.report("r-1", version)) for version in (1, 2)],
    }


def freeze() -> None:
    """Write the fixtures of the code that is there now."""
    import duckdb

    from store import open_store
    from tests.store.conftest import Make

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frozen.duckdb"
        store = open_store(str(path))
        fill(store, Make())
        said = answers(store)
        store.close()
        with duckdb.connect(str(path), read_only=True) as connection:
            revision = connection.execute("select version_num from alembic_version").fetchall()
            shape = connection.execute(
                "select table_name, column_name from information_schema.columns"
                " where table_name != 'alembic_version' order by table_name, ordinal_position"
            ).fetchall()
            columns: dict[str, list[str]] = {}
            for table, column in shape:
                columns.setdefault(table, []).append(column)
            lines = [f"-- The rows of a store of schema {revision[0][0]}, frozen at its release."]
            for table, names in columns.items():
                rows = connection.execute(f"select * from {table} order by all").fetchall()
                lines += [
                    f"insert into {table} ({', '.join(names)}) values "
                    f"({', '.join(literal(value) for value in row)})"
                    for row in rows
                ]
        FIXTURES.mkdir(exist_ok=True)
        target = FIXTURES / f"{revision[0][0]}.sql"
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        frozen = {"content": content(path, columns), "answers": said}
        target.with_suffix(".json").write_text(json.dumps(frozen, indent=1) + "\n")
        print(f"{target}: {len(lines) - 1} rows")


def literal(value: Any) -> str:
    """A value in SQL that DuckDB and PostgreSQL read alike."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"cast('{value!r}' as double precision)"
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat(sep=' ')}'"
    quoted = "'" + value.replace("'", "''") + "'"
    return "(" + quoted.replace("\n", "' || chr(10) || '") + ")" if "\n" in quoted else quoted


if __name__ == "__main__":
    if sys.argv[1:] == ["freeze"]:
        freeze()
    elif len(sys.argv) == 4 and sys.argv[1] == "write":
        write(sys.argv[2], Path(sys.argv[3]).resolve())
    else:
        sys.exit(__doc__)
