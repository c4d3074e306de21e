"""The grammar of a recipe: one table, from which the parser's checks and the published JSON Schema are both made.

A key that stands here runs. A key that is planned and doesn't run yet is listed under `later`, and refused by name.
"""

from __future__ import annotations

from gx.core.terms import GPUS, MOST_CONTAINERS
from gx.flow.keys import JustOne, NotBoth, OneOf, OnlyWith, PromptUnless
from gx.flow.scalars import Constant, Duration, Flag, Number, Scalar, Text
from gx.flow.shapes import Anything, Either, Field, Json, Many, Named, Table

INPUTS = "inputs"
_IDENTIFIER = Text("a name of letters, digits and _, for use in templates", "[A-Za-z_][A-Za-z0-9_]*", 64)
_NAME = Text("a name of letters, digits, -, _ and .", "[A-Za-z0-9][A-Za-z0-9._-]*", 64)
_STEP_ID = Text("a step id of letters, digits, - and _ (not `inputs`)", "(?!inputs$)[A-Za-z0-9_-]+", 64)
_TEMPLATE = Text("a template")
_COUNT = Number(least=1, most=1_000_000_000_000, is_whole=True)
_SEED = Number(least=0, most=2**32 - 2, is_whole=True)  # llama.cpp takes 2³² − 1 as "random"

ADAPTER = Table(
    "an adapter",
    {
        "source": Field(
            Text("where the adapter comes from"),
            "./file.gguf, hf:owner/repo/file.gguf or https://…#sha256=…: a LoRA adapter made for this model.",
            is_required=True,
        ),
        "strength": Field(Number(least=-10, most=10), "How much it counts; 1 where left out."),
    },
)

MODEL = Table(
    "a model",
    {
        "source": Field(
            Text("where the model comes from"),
            "A catalogue name, ./file.gguf, hf:owner/repo/file.gguf or https://…#sha256=….",
            is_required=True,
        ),
        "context": Field(
            Number(least=16, most=100_000_000, is_whole=True),
            "The most tokens that one turn may take, prompt and answer together. The settings' value where left out.",
        ),
        "adapters": Field(
            Many(Either((Text("where the adapter comes from"), ADAPTER)), "a list of adapters", least=1),
            "LoRA adapters that are put on the model. With others, or none, it is another model.",
        ),
    },
)

SAMPLING = Table(
    "sampling",
    {
        "temperature": Field(Number(least=0, most=2), "0 takes the likeliest token each time (the default)."),
        "top_k": Field(Number(least=1, most=1_000_000, is_whole=True), "Draw from the k likeliest tokens only."),
        "top_p": Field(Number(above=0, most=1), "Draw from the likeliest tokens that make up this share."),
        "min_p": Field(Number(least=0, most=1), "Leave out tokens less likely than this share of the likeliest."),
        "typical_p": Field(
            Number(above=0, most=1),
            "Draw from the tokens that are about as surprising as the model expects, that make up this share.",
        ),
        "repetition_penalty": Field(Number(above=0, most=10), "Above 1, tokens that came already come less often."),
        "presence_penalty": Field(Number(least=-2, most=2), "Above 0, tokens that came already come less often."),
        "frequency_penalty": Field(
            Number(least=-2, most=2), "Above 0, tokens come the less often the more often they came already."
        ),
        "seed": Field(_SEED, "Equal seeds draw equal tokens. 0 where left out."),
        "max_tokens": Field(
            Number(least=1, most=1_000_000, is_whole=True), "The most tokens of an answer. 512 where left out."
        ),
        "stop": Field(
            Either((Text("a text"), Many(Text("a text"), "a list of texts", most=16)), as_tuple=True),
            "The answer ends before the first of these texts.",
        ),
        "logprobs": Field(
            Number(least=0, most=20, is_whole=True),
            "Tell with an answer how likely the model found each token of it, and so many of the likeliest ones, "
            "before any of these settings. Not told where left out.",
        ),
    },
)

_QUERY = "A template, as a prompt is one, without `memories`."
_KIND = Text("fact, episode or chunk", choices=("fact", "episode", "chunk"))
MEMORY = Table(
    "a memory",
    {
        "namespace": Field(_TEMPLATE, f"Where to search; `default` where left out. {_QUERY}"),
        "k": Field(Number(least=1, most=100, is_whole=True), "The most that is found. 5 where left out."),
        "kinds": Field(
            Either((_KIND, Many(_KIND, "a list of kinds", least=1, is_unique=True)), as_tuple=True),
            "Of which kinds. All where left out.",
        ),
        "min_score": Field(Number(least=0, most=1), "Nothing is found that ranks lower: 1 is first by all counts."),
        "min_similarity": Field(
            Number(least=-1, most=1), "Nothing is found by its meaning alone whose cosine with the question is lower."
        ),
        "live": Field(
            Flag(), "Find what was written since the run began too, by itself or others. Then no two runs are alike."
        ),
        "query": Field(_TEMPLATE, f"What to search for; the prompt where left out. {_QUERY}"),
        "rerank": Field(
            Flag(),
            "Whether the reranker that is set (`memory_reranker`) orders what is found: it must with `true`, and does "
            "not with `false`. Where left out, it does if one is set.",
        ),
    },
)

REMEMBER = Table(
    "what is remembered",
    {
        "namespace": Field(_TEMPLATE, "Where to; `default` where left out. A template, as a prompt is one."),
        "kind": Field(
            Text("fact or episode", choices=("fact", "episode")),
            "`fact` (the default): twice the same is one. `episode`: it happened at a time, and each is one.",
        ),
        "text": Field(
            _TEMPLATE,
            "What of a result: a template over `output` and what a prompt has. All of it where left out; nothing is "
            "remembered where it comes out empty.",
        ),
    },
)
_NAMESPACE = Text("a namespace")
_MEMORY = Either((_NAMESPACE, MEMORY))

_TRAIT = Text("a trait: a template", longest=2000)
_TRAIT_NAME = Text("a name without braces", r"[^\s{}:](?:[^\n{}:]*[^\s{}:])?", 64)
EXAMPLE = Table(
    "an example",
    {
        "input": Field(Anything("what is asked"), "What is asked: a text, or JSON. No template.", is_required=True),
        "output": Field(
            Anything("what is answered"),
            "What is answered to it: a text, or JSON, that the agent's `output` allows. No template.",
            is_required=True,
        ),
    },
)
PERSONA = Table(
    "a persona",
    {
        "name": Field(Text("a name of one line", r"\S(?:.*\S)?", 80), "What people call it. The model isn't told."),
        "description": Field(Text(), "What it is for. The model isn't told."),
        "text": Field(
            _TEMPLATE, "The system message: a template that may use `params` and `matrix`.", is_required=True
        ),
        "traits": Field(
            Either(
                (
                    Many(_TRAIT, "a list of traits", least=1, most=64),
                    Named(_TRAIT, "a mapping of traits", _TRAIT_NAME, least=1),
                )
            ),
            "Short statements, which stand under the text, one a line. Templates, as the text is one.",
        ),
        "examples": Field(
            Many(EXAMPLE, "a list of examples", least=1, most=64),
            "What it was asked and answered: messages between the persona and the prompt.",
        ),
        "sampling": Field(SAMPLING, "How tokens are drawn, where the agent doesn't say."),
        "private": Field(Flag(), "Whether it never leaves this machine, nor what is made with it."),
    },
)

AGENT = Table(
    "an agent",
    {
        "model": Field(_NAME, "The name of a model above. May be left out where there is only one."),
        "persona": Field(
            Either((_TEMPLATE, PERSONA)),
            "Who the agent is: the system message, a template that may use `params` and `matrix`; or a mapping, with "
            "traits and examples; or the name of a file with such a mapping, beside the recipe: ./personas/x.yaml.",
        ),
        "sampling": Field(SAMPLING, "How tokens are drawn."),
        "output": Field(Json("a JSON Schema"), "A JSON Schema; generation is constrained to it. Text where left out."),
        "grammar": Field(
            Text("a grammar", longest=100_000),
            "A context-free grammar, in Lark or in llama.cpp's GBNF; the answer is a text that fits it. In place of an "
            "`output`.",
        ),
        "choose": Field(
            Text("scored or calibrated", choices=("scored", "calibrated")),
            "Weigh the options of an `output` of enums instead of writing one: `scored` takes the likeliest, "
            "`calibrated` the one that is the furthest above what it is on average over the input's first 32 rows. So "
            "no row begins before these are read. With fewer than 16 rows, or over another step, it is compared with "
            "empty inputs.",
        ),
        "private": Field(Flag(), "Whether its tasks, and what is made from their results, never leave this machine."),
        "memory": Field(
            _MEMORY,
            "Search the memory before each task: a namespace, or a mapping. What is found is `memories` in the prompt, "
            "and stands before it where the prompt doesn't name it. An `output` may say `x-from: memories.id` (or "
            "`.file`, `.path`, `.source`, `.uid`) in place of an enum: one of those that were found.",
        ),
    },
    later=("tools",),
)

PARAM = Table(
    "a parameter",
    {
        "type": Field(
            Text("string, integer, number or boolean", choices=("string", "integer", "number", "boolean")),
            "What the value is. The default's own type where left out, else string.",
        ),
        "default": Field(Scalar(), "The value where `--set name=value` gives none."),
        "required": Field(Flag(), "Whether it must be given. True where there is no default."),
        "description": Field(Text(), "What it is for."),
    },
)

RETRY = Table(
    "a retry policy",
    {
        "limit": Field(Number(least=0, most=100, is_whole=True), "How many more attempts follow a failed one."),
        "backoff": Field(Duration(), "The wait before the first of them; it doubles each time. 1s where left out."),
        "max_backoff": Field(Duration(), "The longest wait. 60s where left out."),
    },
)

BUDGET = Table(
    "a budget",
    {
        "tokens": Field(_COUNT, "No task begins once this many tokens, prompts and answers together, are spent."),
        "usd": Field(
            Number(least=0, most=1_000_000),
            "The most US dollars that rented containers may cost over the run's whole life. None where left out.",
        ),
        "at_cap": Field(
            Text("local, stop or ask", choices=("local", "stop", "ask")),
            "What becomes of the rest once those dollars are spent: `local` (the default) does it on this machine, "
            "`stop` stops the run with exit code 4, `ask` asks a person.",
        ),
    },
)

_GPU = Text("the name of a GPU", choices=GPUS)
BURST = Table(
    "a burst",
    {
        "mode": Field(
            Text("auto, off or force", choices=("auto", "off", "force")),
            "`auto` (the default) rents what the backlog is worth, `force` as many as it may at once, `off` none.",
        ),
        "gpu": Field(
            Either((_GPU, Many(_GPU, "a list of GPUs", least=1, is_unique=True)), as_tuple=True),
            "The GPUs that may be rented. Any where left out.",
        ),
        "max_containers": Field(
            Number(least=1, most=MOST_CONTAINERS, is_whole=True), "The most containers at once. 4 where left out."
        ),
        "target": Field(Duration(), "When the run should be done at the latest, from its start. Sooner is rented for."),
    },
)

_FIELD = Text("the name of a field", longest=200)
LONG = Table(
    "what becomes of long prompts",
    {
        "how": Field(
            Text("retrieve, reduce or refuse", choices=("retrieve", "reduce", "refuse")),
            "`retrieve` (the default) puts in what of its longest texts is nearest to the rest of the prompt, as many "
            "parts as fit; `reduce` has the agent take notes on each part, and puts these in; with `refuse` the task "
            "fails.",
        ),
        "dialogue": Field(
            Text("drop, summarise or refuse", choices=("drop", "summarise", "refuse")),
            "Of a batch row's messages, `drop` (the default) leaves out the oldest; `summarise` has the agent take "
            "notes on these, and puts them in front of the rest; with `refuse` the task fails.",
        ),
        "field": Field(_FIELD, "The one text that is cut, such as `text` of the row. The longest where left out."),
    },
)
_NEEDS = Many(_STEP_ID, "a list of step ids", is_unique=True)
_MATRIX_VALUES = Many(Scalar(), "a list of values", least=1, is_unique=True)

STEP = Table(
    "a step",
    {
        "id": Field(_STEP_ID, "The step's name: letters, digits, - and _.", is_required=True),
        "agent": Field(
            Text("the name of an agent"),
            "The name of an agent above, or a template over the matrix, such as {{ matrix.agent }}.",
        ),
        "agents": Field(
            Many(_NAME, "a list of agents", least=1, is_unique=True),
            "Names of agents, each of which does all of it: a matrix of the name `agent`. All answers are kept.",
        ),
        "prompt": Field(
            _TEMPLATE,
            "The user message: a template over `item` and `input` (with for_each), `items` (with reduce), `memories` "
            "(with a memory), `index`, `id`, `params`, `steps` and `matrix`. May be left out where batch rows bring "
            "their own messages.",
        ),
        "combine": Field(
            _TEMPLATE, "The prompt for the higher levels of a reduce, where `items` are answers of this step."
        ),
        "needs": Field(
            Either((_STEP_ID, _NEEDS), as_tuple=True),
            "The steps that must end before this one, which then may read them.",
        ),
        "for_each": Field(
            Text("`inputs` or a step id", "[A-Za-z0-9_-]+", 64),
            "A task for each row of the `inputs`, or for each result of a step.",
        ),
        "reduce": Field(
            _STEP_ID, "One answer from all results of a step: a tree of calls, as deep as context demands."
        ),
        "when": Field(
            Either((Flag(), Text("an expression"))),
            "A Jinja2 expression: the step or task is skipped where it is false. May ask always(), all_ok(), any_ok().",
        ),
        "matrix": Field(
            Named(_MATRIX_VALUES, "a matrix of names and lists of values", _IDENTIFIER, least=1),
            "Lists of values: the step runs once for each combination.",
        ),
        "retry": Field(RETRY, "What happens after a failed attempt. No further attempt where left out."),
        "timeout": Field(Duration(), "The longest that one attempt may take."),
        "continue_on_error": Field(Flag(), "Whether failures of this step are no failure of the run."),
        "private": Field(Flag(), "Whether its tasks, and what is made from their results, never leave this machine."),
        "share": Field(
            Either((Flag(), Many(_FIELD, "a list of fields", least=1, is_unique=True))),
            "The fields of its output that may leave although they were made from something private; `true` for all.",
        ),
        "memory": Field(_MEMORY, "What to search the memory for, in place of the agent's own."),
        "remember": Field(
            Either((_NAMESPACE, REMEMBER)), "Remember its results: a namespace, or a mapping. Labels are inherited."
        ),
        "long": Field(
            Either((Text("retrieve, reduce or refuse", choices=("retrieve", "reduce", "refuse")), LONG)),
            "What becomes of a prompt that is longer than the model's context: `retrieve` the parts that are nearest "
            "to the question (the default), `reduce` its texts to notes, or `refuse` it. A dialogue loses its oldest "
            "turns, unless it is refused.",
        ),
    },
    rules=(
        NotBoth("for_each", "reduce", "for_each makes a task per item, reduce one answer from all of them"),
        OneOf("agent", "agents"),
        NotBoth("reduce", "agents", "a reduce ends in one answer"),
        NotBoth("reduce", "matrix", "a matrix of a reduce is not built yet in this version of gx"),
        OnlyWith("combine", "reduce"),
        PromptUnless(INPUTS),
    ),
    later=("tool", "swarm", "machine", "recipe", "ask", "evolve"),
)

ROUTE = Table(
    "a route",
    {
        "step": Field(_STEP_ID, "The step whose tasks go another way.", is_required=True),
        "agent": Field(_NAME, "The agent that they are prepared for."),
        "model": Field(_NAME, "The model that their own agent runs on."),
    },
    rules=(NotBoth("agent", "model", "an agent brings its own model"),),
)

_CHOICE = Text("a choice of one line", r"\S(?:.*\S)?", 80)
QUESTION = Table(
    "a question",
    {
        "text": Field(Text("the question", longest=2000), "What the person is asked.", is_required=True),
        "choices": Field(
            Many(_CHOICE, "a list of choices", least=2, most=9, is_unique=True),
            "What may be answered; [continue, stop] where left out. `stop` stops the run, any other lets it go on.",
        ),
    },
)

_REASON = Text("a reason", longest=500)
ACTIONS = {
    "pause": Field(_STEP_ID, "Begin nothing more of this step; what is running ends."),
    "continue": Field(_STEP_ID, "Let this step go on, if it is paused."),
    "concurrency": Field(
        Number(least=0, most=1_000_000, is_whole=True), "At most so many tasks at once; 0 lifts that limit."
    ),
    "route": Field(ROUTE, "Prepare a step's tasks for another agent or model; with neither, as the step says, again."),
    "burst": Field(_REASON, "Rent what the run may, for this reason, worth it or not."),
    "stop": Field(_REASON, "Stop the run, for this reason; what is running ends."),
    "ask": Field(
        Either((Text("the question", longest=2000), QUESTION)),
        "Ask a person; nothing begins before the answer (`gx answer RUN CHOICE`).",
    ),
}
RULE = Table(
    "a rule",
    {
        "id": Field(_STEP_ID, "The rule's name: letters, digits, - and _.", is_required=True),
        "query": Field(
            Text("a query", longest=10_000),
            "SQL over the log's views, about the run $run. True if it gives a row whose first column is neither NULL, "
            "false nor 0.",
            is_required=True,
        ),
        "do": Field(
            Table("an action", ACTIONS, rules=(JustOne("one action", tuple(ACTIONS)),)),
            "What is done when the query turns from false to true.",
            is_required=True,
        ),
        "cooldown": Field(Duration(), "How long after that it isn't done again. 10s where left out."),
    },
)

RECIPE = Table(
    "a recipe",
    {
        "version": Field(Constant(1), "The version of this grammar: 1.", is_required=True),
        "name": Field(
            Text("a name of one line", r"\S(?:.*\S)?", 80), "What runs of this recipe are called.", is_required=True
        ),
        "description": Field(Text(), "What the recipe is for."),
        "params": Field(
            Named(Either((PARAM, Scalar())), "a mapping of parameters", _IDENTIFIER),
            "Values that `--set name=value` changes. A bare value is the default.",
        ),
        "models": Field(
            Named(Either((Text("where the model comes from"), MODEL)), "a mapping of models", _NAME, least=1),
            "Names for models, and where they come from.",
            is_required=True,
        ),
        "agents": Field(
            Named(AGENT, "a mapping of agents", _NAME, least=1),
            "Personas with a model, sampling and an output schema.",
            is_required=True,
        ),
        "steps": Field(Many(STEP, "a list of steps", least=1), "The work, as a graph of steps.", is_required=True),
        "inputs": Field(
            Text("a file, folder or glob"),
            "The input where the command names none: a file, folder or glob, beside the recipe.",
        ),
        "private": Field(
            Many(_FIELD, "a list of fields", least=1, is_unique=True),
            "Fields of the input's rows that never leave this machine, and neither does what is made from them.",
        ),
        "output": Field(_STEP_ID, "The step whose results go to stdout. The last one where left out."),
        "deadline": Field(Duration(), "The longest that the run may take."),
        "budget": Field(BUDGET, "Limits for the whole run."),
        "burst": Field(BURST, "On what terms containers may be rented for what this machine can't do in time."),
        "rules": Field(Many(RULE, "a list of rules"), "What is done by itself when the log says so."),
    },
)
