# What a developer types. `just` alone checks everything that CI checks.

check: lint types imports tests

# All checks and tests: what CI runs.
test: check

lint:
    ruff check .
    ruff format --check .

types:
    mypy

imports:
    lint-imports

tests *ARGS:
    pytest --numprocesses auto --maxprocesses 4 --dist worksteal {{ARGS}}

# Speeds, as ratios against named peers.
bench:
    python -m tests.bench.startup
    python -m tests.bench.orchestration
    python -m tests.bench.beside
    python -m tests.bench.loopback
    python -m tests.bench.placement
    python -m tests.bench.memory

# The engine beside llama-server and llama-cpp-python; builds those first.
bench-engine *ARGS:
    python -m tests.bench.engine {{ARGS}}

# All that is claimed of the engine: its workloads, a second format, embeddings, a run, company, and our own share.
bench-engine-all:
    python -m tests.bench.engine
    python -m tests.bench.engine W2 --as Q4_0
    python -m tests.bench.engine.embed
    python -m tests.bench.engine.through
    python -m tests.bench.engine.recipe
    python -m tests.bench.engine.company
    python -m tests.bench.engine.share

# What takes long: 50 kills of a run, a burst under kills, an hour of all that the engine may be asked, 20,000 recipes, 10,000 requests.
soak:
    python -m tests.soak.kill --kills 50
    python -m tests.soak.burst --tasks 500 --driver-kills 5 --container-kills 10 --lost 10
    python -m tests.soak.parity --tasks 50
    python -m tests.soak.cap --rehearsals 10
    GX_PRIVACY_EXAMPLES=50 pytest --hypothesis-profile=explore tests/integration/test_nothing_private_leaves.py
    pytest --hypothesis-profile=explore --numprocesses auto tests/core tests/flow tests/run tests/edge tests/node tests/verbs
    python -m tests.soak.engine --minutes 60
    python -m tests.fuzz.recipes --cases 20000 --executed 200
    python -m tests.fuzz.schemas --cases 10000 --suite
    python -m tests.fuzz.templates
    python -m tests.fuzz.node_api --requests 10000

# The main job on the bundled tickets.
demo:
    gx run recipes/triage.yaml
