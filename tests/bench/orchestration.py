"""What gx costs beside the work: durable no-op jobs a second, beside huey and dbos, in one interleaved run.

gx: a recipe over 10,000 rows through parse, plan, log, scheduler and dispatcher, with a worker that answers at once,
until every result is committed. huey: SqliteHuey with fsync, 10,000 tasks queued and consumed, results stored; its
consumer starts first, with two workers, which was its fastest. dbos: workflows of one no-op step on SQLite, in its
queue; 1,000 of them, since its rate does not depend on their number. Each run is a process of its own.
"""

from __future__ import annotations

import sys

from tests.bench.peers import environment, median, run_script, verdict

ROUNDS = 3
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
consumer = huey.create_consumer(workers=2, periodic=False)
began = time.perf_counter()
consumer.start()
for number in range(jobs): noop(number)
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
    rates: dict[str, list[float]] = {"gx": [], "huey": [], "dbos": []}
    many: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        rates["gx"].append(ours(JOBS)[0])
        rates["huey"].append(float(run_script(huey, "-c", HUEY, str(JOBS)).splitlines()[-1]))
        rates["dbos"].append(float(run_script(dbos, "-c", DBOS, str(DBOS_JOBS)).splitlines()[-1]))
        many.append(ours(MANY))
    for name, found in rates.items():
        sys.stdout.write(f"{name:5} median of {ROUNDS}: {median(found):8,.0f} jobs/s\n")
    gx = median(rates["gx"])
    rate, memory = median([m[0] for m in many]), median([m[1] for m in many])
    sys.stdout.write(f"gx at {MANY:,} tasks, median of {ROUNDS}: {rate:8,.0f} jobs/s\n")
    return verdict(
        ("rate, gx / huey", gx / median(rates["huey"]), 1.5, True),
        ("rate, gx / dbos", gx / median(rates["dbos"]), 15, True),
        ("rate, 100,000 tasks / 10,000 tasks", rate / gx, 0.8, True),
        ("KiB resident a finished task, at 100,000", memory, 2.0, False),
    )


def ours(jobs: int) -> tuple[float, float]:
    """Tasks a second, and KiB of resident memory that each added, in a process of its own."""
    rate, memory = run_script(sys.executable, "-m", "tests.bench.noop", str(jobs)).split()
    return float(rate), float(memory)


if __name__ == "__main__":
    sys.exit(main())
