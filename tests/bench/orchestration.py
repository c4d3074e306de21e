"""What gx costs beside the work: durable no-op jobs a second, beside huey and dbos, in one interleaved run.

gx: a recipe over 10,000 rows through parse, plan, log, scheduler and dispatcher, with a worker that answers at once,
until every result is committed. huey: SqliteHuey with fsync, 10,000 tasks queued, then consumed by its consumer with
one thread, results stored: beside the queueing, or with more threads, it was slower. dbos: workflows of one no-op step
on SQLite, in its queue; 1,000 of them, since its rate does not depend on their number. Each run is a process of its
own, and all write to one disk: the user's cache folder, since /tmp may be memory, where nothing has to be synced.

Memory is what a run of 100,000 added for each task; and, without what any run adds, what each task beyond 10,000 did.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import platformdirs

from tests.bench.peers import environment, median, run_script, verdict

ROUNDS = 5
JOBS = 10_000
DBOS_JOBS = 1_000
MANY = 100_000

HUEY = """
import sys, tempfile, threading, time
from huey import SqliteHuey
jobs, done, lock = int(sys.argv[1]), 0, threading.Lock()
huey = SqliteHuey(filename=tempfile.mkdtemp() + "/huey.db", fsync=True)
@huey.task()
def noop(number): return number
@huey.post_execute()
def count(task, value, error):
    global done
    with lock: done += 1
began = time.perf_counter()
for number in range(jobs): noop(number)
consumer = huey.create_consumer(workers=1, periodic=False)
consumer.start()
while done < jobs or huey.result_count() < jobs: time.sleep(0.005)
print(jobs / (time.perf_counter() - began), flush=True)
import os; os._exit(0)
"""

DBOS = """
import sys, tempfile, time
from dbos import DBOS
jobs = int(sys.argv[1])
DBOS(config={"name": "noop", "system_database_url": f"sqlite:///{tempfile.mkdtemp()}/dbos.sqlite",
             "log_level": "ERROR", "run_admin_server": False})
@DBOS.step()
def noop(number): return number
@DBOS.workflow()
def job(number): return noop(number)
DBOS.launch()
queue = DBOS.register_queue("jobs", polling_interval_sec=0.05)
began = time.perf_counter()
for handle in [queue.enqueue(job, number) for number in range(jobs)]: handle.get_result()
print(jobs / (time.perf_counter() - began), flush=True)
import os; os._exit(0)
"""


def main() -> int:
    """Print the medians and their ratios; 1 if a claim is missed."""
    huey, dbos = environment("huey==3.5.4"), environment("dbos==3.4.0")
    cache = Path(platformdirs.user_cache_dir("gx", appauthor=False)) / "bench"
    few: list[tuple[float, float]] = []
    many: list[tuple[float, float]] = []
    rates: dict[str, list[float]] = {"huey": [], "dbos": []}
    with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder  # where each process makes its files
        for _ in range(ROUNDS):
            few.append(ours(JOBS))
            rates["huey"].append(float(run_script(huey, "-c", HUEY, str(JOBS)).splitlines()[-1]))
            rates["dbos"].append(float(run_script(dbos, "-c", DBOS, str(DBOS_JOBS)).splitlines()[-1]))
            many.append(ours(MANY))
    gx, gx_many = median([rate for rate, _ in few]), median([rate for rate, _ in many])
    kib, kib_many = median([kib for _, kib in few]), median([kib for _, kib in many])
    for name, jobs, found in (
        ("gx", JOBS, [rate for rate, _ in few]),
        ("gx", MANY, [rate for rate, _ in many]),
        ("huey", JOBS, rates["huey"]),
        ("dbos", DBOS_JOBS, rates["dbos"]),
    ):
        all_runs = ", ".join(f"{rate:,.0f}" for rate in found)
        sys.stdout.write(f"{name:5}{jobs:8,} jobs, median of {ROUNDS}: {median(found):7,.0f} jobs/s  ({all_runs})\n")
    return verdict(
        ("rate, gx / huey", gx / median(rates["huey"]), 1.5, True),
        ("rate, gx / dbos", gx / median(rates["dbos"]), 15, True),
        ("rate, 100,000 tasks / 10,000 tasks", gx_many / gx, 0.8, True),
        ("KiB resident a finished task, at 100,000", kib_many, 2.0, False),
        ("KiB resident a finished task beyond 10,000", (kib_many * MANY - kib * JOBS) / (MANY - JOBS), 2.0, False),
    )


def ours(jobs: int) -> tuple[float, float]:
    """Tasks a second, and KiB of resident memory that each added, in a process of its own."""
    rate, memory = run_script(sys.executable, "-m", "tests.bench.noop", str(jobs)).split()
    return float(rate), float(memory)


if __name__ == "__main__":
    sys.exit(main())
