"""A run as one report: its figures, each of them asked of the log by SQL, and small however long the run."""
