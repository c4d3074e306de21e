"""Inputs as rows: JSON lines, JSON arrays, CSV, plain lines, folders and globs of text files, and stdin.

Rows stream in order, in memory that doesn't grow with the input. What is wrong with one row is that row's error and
the rest goes on; what is wrong with the input as a whole is an `InputError`.
"""

from gx.run.inputs.opening import MAX_ROW_BYTES, open_inputs, take
from gx.run.inputs.rows import Row
from gx.run.inputs.source import Source, StreamSource

__all__ = ["MAX_ROW_BYTES", "Row", "Source", "StreamSource", "open_inputs", "take"]
