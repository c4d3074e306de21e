"""`python -m gx` is `gx`."""

from gx.cli.main import main

if __name__ == "__main__":
    main()
