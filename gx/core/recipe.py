"""A recipe as a value: what `gx.flow.parse` makes of the YAML, and what everything else reads.

Field names are the recipe's keys. Durations are seconds, sizes are tokens, money is US dollars.
"""

from __future__ import annotations

from typing import Any, Literal

from gx.core.memory import DEFAULT_NAMESPACE, Kind
from gx.core.message import Choice, Sampling, Value
from gx.core.terms import AtCap, Terms


class Adapter(Value, frozen=True, kw_only=True):
    """A LoRA adapter, a GGUF file made for the model that it is put on, and how much it counts."""

    source: str
    strength: float = 1.0


class Model(Value, frozen=True, kw_only=True):
    """Where a model comes from: a catalogue name, ./file.gguf, hf:owner/repo/file.gguf or https://…#sha256=….

    `context` caps the tokens of one turn, prompt and answer together; `None` takes the settings' value.
    """

    source: str
    context: int | None = None
    adapters: tuple[Adapter, ...] = ()


class Recall(Value, frozen=True, kw_only=True):
    """What is searched for in the memory before a task begins; `namespace` and `query` are templates.

    The question is the prompt, as it is with nothing found, where `query` is left out. A run sees the memory as it was
    when it began, and what was written since too if `live`. The rest is as in `gx.core.memory.Query`.
    """

    namespace: str = DEFAULT_NAMESPACE
    k: int = 5
    kinds: tuple[Kind, ...] = ()
    min_score: float = 0.0
    min_similarity: float | None = None
    live: bool = False
    query: str | None = None
    rerank: bool | None = None


class Remember(Value, frozen=True, kw_only=True):
    """What of a task's result is remembered; `namespace` and `text` are templates. Nothing is, of an empty text."""

    namespace: str = DEFAULT_NAMESPACE
    kind: Kind = Kind.fact
    text: str = "{{ output }}"


class Long(Value, frozen=True, kw_only=True):
    """What becomes of a prompt that the model's context can't hold.

    `retrieve` puts in what of its longest texts is nearest to the rest of it, `reduce` notes that the agent took on
    each part of them; of these texts only `field`, where it is set ("text" of the row, or "item.text"). A dialogue is
    made to fit by leaving out its oldest turns (`drop`), or by notes in their place (`summarise`). With `refuse` the
    task fails.
    """

    how: Literal["retrieve", "reduce", "refuse"] = "retrieve"
    dialogue: Literal["drop", "summarise", "refuse"] = "drop"
    field: str | None = None


class Example(Value, frozen=True, kw_only=True):
    """What an agent is asked, and what it answers to that, as the messages of a chat say it."""

    input: str
    output: str


class Agent(Value, frozen=True, kw_only=True):
    """A persona with a model, sampling and an output schema. `persona` is a template over params and matrix.

    The `examples` stand between it and the prompt, and are no templates.
    With a `grammar`, in Lark or GBNF, the answer is a text of it. With `choose`, the options of the schema are weighed
    instead of written. A `private` one works on this machine only.
    With a `memory`, each of its tasks begins with a search.
    """

    name: str
    model: str
    persona: str = ""
    examples: tuple[Example, ...] = ()
    sampling: Sampling = Sampling()
    output: dict[str, Any] | None = None
    grammar: str | None = None
    choose: Choice | None = None
    private: bool = False
    memory: Recall | None = None


class Retry(Value, frozen=True, kw_only=True):
    """`limit` further attempts after a failure; the n-th waits `backoff_s` × 2ⁿ⁻¹.

    Waits are jittered, and `max_backoff_s` at most.
    """

    limit: int = 0
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0


class Step(Value, frozen=True, kw_only=True):
    """A vertex of the recipe's graph. `for_each` is "inputs" or a step id; `reduce` is a step id.

    The tasks of a `private` one stay on this machine. `share` are the fields of its output (`True`: all of it) that may
    leave although they were made from something private. `memory` takes the place of its agent's.
    """

    id: str
    agent: str
    prompt: str | None = None
    combine: str | None = None
    needs: tuple[str, ...] = ()
    for_each: str | None = None
    reduce: str | None = None
    when: str | None = None
    matrix: dict[str, tuple[Any, ...]] = {}
    retry: Retry = Retry()
    timeout_s: float | None = None
    continue_on_error: bool = False
    private: bool = False
    share: tuple[str, ...] | bool = ()
    memory: Recall | None = None
    remember: Remember | None = None
    long: Long = Long()

    def recall(self, agent: Agent) -> Recall | None:
        """What its tasks with that agent search for; `None` if nothing."""
        return self.memory if self.memory is not None else agent.memory


class Param(Value, frozen=True, kw_only=True):
    """A value that `--set name=value` changes. Without a default it must be given."""

    type: Literal["string", "integer", "number", "boolean"] = "string"
    default: Any = None
    required: bool = False
    description: str = ""


class Budget(Value, frozen=True, kw_only=True):
    """Limits for the whole run: `tokens` `None` is no limit, `usd` `None` no leave to spend anything.

    `at_cap` says what becomes of the rest once the dollars are spent.
    """

    tokens: int | None = None
    usd: float | None = None
    at_cap: AtCap = "local"


class Pause(Value, frozen=True, kw_only=True, tag="pause"):
    """Begin nothing more of a step."""

    step: str


class Continue(Value, frozen=True, kw_only=True, tag="continue"):
    """Let a paused step go on."""

    step: str


class Limit(Value, frozen=True, kw_only=True, tag="concurrency"):
    """Let at most so many tasks of the run run at once; 0 lifts that limit."""

    concurrency: int


class Route(Value, frozen=True, kw_only=True, tag="route"):
    """Prepare a step's tasks for another agent, or for another model; with neither, as the recipe says, again."""

    step: str
    agent: str | None = None
    model: str | None = None


class Burst(Value, frozen=True, kw_only=True, tag="burst"):
    """Ask for rented containers, for that reason."""

    reason: str


class Stop(Value, frozen=True, kw_only=True, tag="stop"):
    """Stop the run, for that reason."""

    reason: str


class Ask(Value, frozen=True, kw_only=True, tag="ask"):
    """Ask a person, and begin nothing before the answer. `stop` stops the run; any other choice lets it go on."""

    text: str
    choices: tuple[str, ...] = ("continue", "stop")


Action = Pause | Continue | Limit | Route | Burst | Stop | Ask
"""What a rule may do, and all that it may."""


class Rule(Value, frozen=True, kw_only=True):
    """`do` is done when `query` turns from false to true, and again only `cooldown_s` later at the earliest.

    The query reads the log's views, with `$run` for the run's id. It is true if it gives a row whose first column is
    neither NULL, false nor 0.
    """

    id: str
    query: str
    do: Action
    cooldown_s: float = 10.0


class Recipe(Value, frozen=True, kw_only=True):
    """`inputs` is the default input (a file, folder or glob beside the recipe); `output` is a step id.

    `private` are the fields of the input's rows that never leave this machine, at any depth. `burst` are the terms on
    which it may rent, their cap left out: that is the budget's.
    """

    name: str
    steps: tuple[Step, ...]
    agents: dict[str, Agent]
    models: dict[str, Model]
    params: dict[str, Param] = {}
    inputs: str | None = None
    output: str = ""
    deadline_s: float | None = None
    budget: Budget = Budget()
    description: str = ""
    rules: tuple[Rule, ...] = ()
    private: tuple[str, ...] = ()
    burst: Terms | None = None

    def step(self, step_id: str) -> Step:
        """The step of that id. :raises KeyError: if there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)
