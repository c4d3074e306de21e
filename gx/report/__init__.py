"""A run on one page. The figures come from `gx.run.history.report`; here they are drawn and laid out, and no more."""
