"""What the log says of a run, live or not: what was asked for, how it stands, how it ended.

It asks nobody but the log, of any thread. A run is read from its first event on, which may take a while.
"""

from __future__ import annotations

from gx.core.errors import NotFound
from gx.core.projection import fold
from gx.core.view import RunState, View
from gx.flow import parse
from gx.node import problem, wire
from gx.node.client import RunEnd
from gx.node.standing import end_of
from gx.run.log import EventLog


def asked(log: EventLog, run_id: str) -> wire.Asked:
    """What was asked for when the run began. :raises NotFound: if the log doesn't say."""
    ref = log.asked_of(run_id)
    content = log.blobs([ref]) if ref is not None else {}
    if ref is None or ref not in content:
        raise NotFound(f"the log doesn't say how {run_id} was asked for", hint="give the command again")
    found: wire.Asked = problem.decode(content[ref], wire.Asked)
    return found


def state(log: EventLog, run_id: str) -> RunState:
    """How the run stands."""
    view = View()  # of its own: what a bench did back then is no news of the one that is up
    for event in log.read(run=run_id):
        fold(view, event)
    return view.runs[run_id]


def end(log: EventLog, run_id: str) -> RunEnd:
    """How a run that isn't live ended, or stands. :raises NotFound: as `asked`."""
    wanted = asked(log, run_id).submission
    stands = state(log, run_id)
    plan = parse.plan_recipe(wanted.recipe_text, wanted.params, file=wanted.recipe_file)
    return end_of(stands, plan, seconds=0.0)
