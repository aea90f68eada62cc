"""Copies of a whole store: backups, snapshots, Parquet."""
