"""Figures in words, for whoever tells a person."""


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 task`, `1,200 tasks`; `things` is a plural that isn't made with an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
