"""What the rented bench is called on the account, by those who deploy it and those who use it."""

from __future__ import annotations

APP = "gx"
CLASS = "Bench"
VOLUME = "gx-models"


def board_of(run: str) -> str:
    """The Dict in which a run's containers and its driver meet."""
    return f"gx-{run}"
