"""`python -m gx` is `gx`."""

from gx.cli.main import main

main()
