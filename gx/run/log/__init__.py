"""The append-only event log: a DuckDB file, one thread that writes it, and what may be asked of it."""

from gx.run.log.eventlog import EventLog

__all__ = ["EventLog"]
