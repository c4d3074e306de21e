"""Whether the queries of a recipe's rules can be asked of a log: they are asked of an empty one.

It knows the log's tables and views, and no log. The invariant: a table, a column or a function that there is not is an
error before anything runs; what only content can bring about (a text that is no number) is not found here.
"""

from __future__ import annotations

import contextlib
import re

import duckdb

from gx.core.errors import QueryError
from gx.core.recipe import Recipe
from gx.flow.rules import query_error
from gx.run.log.making import MEMORY, define
from gx.run.log.query import ask

CHECK_S = 5.0
_PLACE = re.compile(r"\n*LINE (\d+): (.*)\n( *)\^", re.DOTALL)


def check_queries(recipe: Recipe, text: str, *, file: str) -> None:
    """Ask each rule's query of an empty log; `text` is what the recipe was read from.

    :raises RecipeError: naming the first that can't be answered, and where in it that is.
    """
    if not recipe.rules:
        return
    with contextlib.closing(duckdb.connect(config={"memory_limit": MEMORY})) as con:
        define(con)
        con.execute("SET TimeZone = 'UTC'; SET enable_external_access = false; SET lock_configuration = true")
        for rule in recipe.rules:
            try:
                with con.cursor() as cursor:
                    ask(cursor, rule.query, timeout_s=CHECK_S, max_rows=1, run="")
            except QueryError as error:
                message, line, col = _placed(error.message)
                said = f"the query of rule `{rule.id}` can't be asked: {message}"
                raise query_error(text, rule.id, said, error.hint, file=file, line=line, col=col) from None


def _placed(message: str) -> tuple[str, int, int]:
    """DuckDB's message without the excerpt that it ends with, and the line and column that it points at."""
    found = _PLACE.search(message)
    if found is None:
        return message, 1, 1
    excerpt = found[2].split("\n")[0]
    col = max(len(found[3]) - len(f"LINE {found[1]}: "), 0) + 1
    is_whole = not excerpt.startswith("...")
    return message[: found.start()].strip(), int(found[1]), col if is_whole else 1
