"""A control plane on 127.0.0.1 that speaks Modal's protocol to the unmodified Modal SDK 1.6.4: a stand-in, not Modal.

The real client (`App.deploy`, `App.run`, `Cls.from_name`, `spawn`, `FunctionCall.get` and `.cancel`, Volumes, Dicts,
Queues, Secrets, logs) talks to it, and it starts the real container entry point, `python -m
modal._container_entrypoint`, as a process for each container. Rehearsals and tests use it: the code path of a burst,
without its price.

What it was checked against: the source of modal 1.6.4 and its container entry point, which run against it unchanged in
tests/cloud. It has never been compared with Modal's own servers. The protocol is internal to Modal; another version of
the SDK may need another loopback.

Where it guesses, since only a server could tell:
- A container is billed from when it is asked for until its process is gone; cold start, loading and idle tail included.
- Containers are wanted for (queued + running) / target inputs; one that idles for its scaledown window goes, the
  longest idle first. Any waiting container may get the next input.
- A container that dies has its inputs queued again at the front; an input lost 8 times fails (8 is the SDK's own limit
  of internal failures). Two failed starts in a row fail what is queued, with the container's own error.
- A preempted container gets SIGINT, and SIGKILL after a grace; what it reports after the signal is ignored.
- A cancel is final for the client at once; the container is told by its heartbeat, once a second at most.
- A function's time-out ends its container; neighbours are queued again. The start-up time-out counts from the request.
- A deployment over an old one lets the old containers finish what they hold, and takes no more for them.
- A request whose reply was lost is done again when the SDK repeats it: an `x-idempotency-key` is not honoured, which is
  the worse of the two cases.
- A result expires as a whole, and an unknown call id is NOT_FOUND.

Where it differs, knowingly:
- Images are not built. Every container runs the desk's own Python packages, less this project: what an app doesn't ship
  can't be imported. Of an image only its `ENV` and its copied local files are used.
- There is no root of its own for a container. Absolute paths of mounts and volumes lie below a folder that stands for
  `/`; its `root` is HOME and the working folder, as on Modal. Code that opens `Path.home() / "x"` works in both.
- A volume is one folder that all containers share: a write is seen at once, commit and reload do nothing. Modes of
  files aren't kept.
- GPUs, CPU and memory are recorded for the bill and not provided. A list of GPUs means its first.
- Not spoken: `.map`, generators, web endpoints, schedules, sandboxes, snapshots, batching, Modal's own retries, and the
  end of an ephemeral app whose client died without a word.
"""
