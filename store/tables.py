"""The tables, in portable SQLAlchemy Core. Owns names and types; not how rows are made (rows.py) or
read (queries.py).

Everything but `journals` is appended, nothing is updated. Ids are strings that sort by time; times
are naive UTC; there are no foreign keys, because DuckDB refuses to change what is referenced. Rows
of one event carry its id and a position within it: only `events` needs a key, the rest is written
in the same transaction. JSON columns hold text that the codec wrote (engine.py switches the
drivers' own conversion off), in ASCII, so that any character can be kept everywhere.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata = MetaData()


def _json(name: str) -> Column[str]:
    return Column(name, JSON(none_as_null=True), nullable=False)


events = Table(
    "events",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("happened_at", DateTime, nullable=False),
    # Null when nobody is known.
    Column("who", String),
)

studies = Table(
    "studies",
    metadata,
    Column("event_id", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("happened_at", DateTime, nullable=False),
    Column("created_at", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("target_id", String, nullable=False),
    Column("workload_id", String, nullable=False),
    Column("preset", String, nullable=False),
    _json("document"),
)

study_states = Table(
    "study_states",
    metadata,
    Column("event_id", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("happened_at", DateTime, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("event_id", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("happened_at", DateTime, nullable=False),
    Column("title", Text, nullable=False),
    Column("model_id", String, nullable=False),
    Column("target_id", String, nullable=False),
    Column("workload_id", String, nullable=False),
    # Technique names between commas, as ",weight-int8,static-batch,": found with LIKE on every
    # database.
    Column("techniques", Text, nullable=False),
    # What a text filter looks through, case folded.
    Column("searchable", Text, nullable=False),
    Column("plan_key", String, nullable=False),
    _json("plan"),
)

# `step` orders the states of one attempt: 0 queued, 1 started, 2 ended.
trial_states = Table(
    "trial_states",
    metadata,
    Column("event_id", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_at", String, nullable=False),
    Column("ended_at", String, nullable=False),
    Column("pid", BigInteger),
    Column("happened_at", DateTime, nullable=False),
)

# `low` and `high` are the stated bounds; a bootstrapped interval is made when it is shown.
# `samples` are the raw values, `reference` the baseline's, pair by pair; `condition` is empty for
# the workload as it is asked.
measurements = Table(
    "measurements",
    metadata,
    Column("event_id", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("metric", String, nullable=False),
    Column("unit", String, nullable=False),
    Column("origin", String, nullable=False),
    Column("method", Text, nullable=False),
    Column("environment_id", String, nullable=False),
    Column("taken_at", String, nullable=False),
    Column("value", Double),
    Column("pooled", Double),
    Column("low", Double),
    Column("high", Double),
    Column("n", Integer, nullable=False),
    _json("samples"),
    Column("condition", Text, server_default="", nullable=False),
    _json("reference"),
    # NULL in rows that are older than the column.
    Column("data", String),
)

kernel_calls = Table(
    "kernel_calls",
    metadata,
    Column("event_id", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("op", String, nullable=False),
    Column("name", String, nullable=False),
    Column("calls", BigInteger, nullable=False),
)

environments = Table(
    "environments",
    metadata,
    Column("event_id", String, nullable=False),
    Column("environment_id", String, nullable=False),
    Column("happened_at", DateTime, nullable=False),
    _json("facts"),
)

notes = Table(
    "notes",
    metadata,
    Column("event_id", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("text", Text, nullable=False),
)

progress = Table(
    "progress",
    metadata,
    Column("event_id", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("stage", String, nullable=False),
    Column("share", Double, nullable=False),
    Column("happened_at", DateTime, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("report_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("study_id", String, nullable=False),
    Column("created_at", String, nullable=False),
    _json("document"),
    PrimaryKeyConstraint("report_id", "version"),
)

# How far each journal was read; unlike all else these rows are replaced. `folder` tells apart the
# machines that share a server, and is empty for a file's own journals.
journals = Table(
    "journals",
    metadata,
    Column("folder", String, nullable=False),
    Column("study_id", String, nullable=False),
    Column("file", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
)
