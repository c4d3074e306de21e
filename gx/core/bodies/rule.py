"""What rules did, and what a person was asked."""

from __future__ import annotations

from gx.core.bodies.blob import Ref
from gx.core.message import Value


class RuleFired(Value, frozen=True, kw_only=True, tag="rule.fired"):
    """The rule's query turned true, and what it does was committed with this. `action` says that in words.

    `read_seq` is the last event that the query saw, `rows` a blob of its answer, and `at` (wall-clock seconds) when it
    was decided: what follows from it is never asked of the log again.
    """

    run: str
    rule: str
    read_seq: int
    rows: Ref
    at: float
    action: str


class RuleCleared(Value, frozen=True, kw_only=True, tag="rule.cleared"):
    """The query of a rule that had fired turned false: the rule may fire again."""

    run: str
    rule: str
    read_seq: int


class RuleFailed(Value, frozen=True, kw_only=True, tag="rule.failed"):
    """The rule's query has no answer; the run goes on. Written once for each error, however often that comes.

    What stands in quotes may be content, and is left out of `message`; `detail` is a blob of the whole.
    """

    run: str
    rule: str
    code: str
    message: str
    detail: Ref


class BurstAsked(Value, frozen=True, kw_only=True, tag="burst.asked"):
    """Somebody holds that the backlog is worth renting for. It is no decision to."""

    run: str
    reason: str
    by: str = ""


class QuestionAsked(Value, frozen=True, kw_only=True, tag="question.asked"):
    """A person is asked. Nothing new begins in the run until one of `choices` is given."""

    run: str
    question: str
    text: str
    choices: tuple[str, ...]
    by: str = ""


class QuestionAnswered(Value, frozen=True, kw_only=True, tag="question.answered"):
    run: str
    question: str
    choice: str
    by: str = ""
