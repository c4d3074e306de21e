"""One peer, one workload, in a process of its own: `python -m tests.bench.engine.players PEER WORKLOAD MODEL SEED`.

It prints a JSON list of what was measured: cold, then warm, which repeats the prefix and never the whole prompts. The
model is loaded before. Peers: `gx`, `llama` (llama-cpp-python, one by one), `server-N` (llama-server with N slots).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx

from tests.bench.engine.build import binary
from tests.bench.engine.drive import Ask, Measured, Messages, Reply, play
from tests.bench.engine.workloads import WORKLOADS

THREADS = 2
SLOT_TOKENS = 2048


@asynccontextmanager
async def gx(model: str) -> AsyncIterator[Ask]:
    """The engine behind its async front."""
    from edge.engine.engine import Completion, Engine, Request
    from edge.engine.front import Front
    from gx.core.message import Failure, Message, Sampling

    engine = Engine(threads=THREADS)
    engine.register("m", model)
    engine.describe("m")
    front = Front(engine)

    async def ask(messages: Messages, max_tokens: int, schema: dict[str, Any] | None) -> Reply:
        said: Any = tuple(Message(role=role, content=content) for role, content in messages)  # type: ignore[arg-type]
        request = Request(
            model="m",
            messages=said,
            sampling=Sampling(max_tokens=max_tokens),
            output_schema=schema,
            ignores_end=schema is None,
        )
        result = await front.generate(request)
        usage = result.usage
        if not isinstance(result, Completion):  # the peers give half a document where the limit strikes
            assert isinstance(result, Failure) and result.code == "truncated", result
        first_s = (usage.queue_ms + usage.prefill_ms) / 1000
        text = result.text if isinstance(result, Completion) else ""
        return Reply(text, usage.tokens_in, usage.tokens_out, first_s)

    yield ask
    sys.stderr.write(f"{engine.statistics()}\n")
    engine.close()


@asynccontextmanager
async def llama(model: str) -> AsyncIterator[Ask]:
    """llama-cpp-python, one request after the other, keeping the last prompt's prefix as it does."""
    import llama_cpp

    one = llama_cpp.Llama(
        model, n_ctx=2 * SLOT_TOKENS, n_threads=THREADS, n_threads_batch=THREADS, flash_attn=True, verbose=False
    )
    alone = anyio.Lock()
    end = {token: -100.0 for token in range(one.n_vocab()) if llama_cpp.llama_vocab_is_eog(one._model.vocab, token)}

    async def ask(messages: Messages, max_tokens: int, schema: dict[str, Any] | None) -> Reply:
        chat: Any = [{"role": role, "content": content} for role, content in messages]
        settings: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens, "repeat_penalty": 1.0}
        if schema is None:
            settings["logit_bias"] = end
        else:
            settings["response_format"] = {"type": "json_object", "schema": schema}
        async with alone:
            answer: Any = await anyio.to_thread.run_sync(lambda: one.create_chat_completion(chat, **settings))
        usage = answer["usage"]
        text = answer["choices"][0]["message"]["content"]
        return Reply(text, usage["prompt_tokens"], usage["completion_tokens"], 0.0)

    yield ask


@asynccontextmanager
async def server(model: str, slots: int) -> AsyncIterator[Ask]:
    """llama-server on a port of its own, asked over HTTP for the same rendered prompts."""
    from edge.engine.llama import Model
    from gx.core.message import Message

    renderer = Model("m", model)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["-m", model, "--port", str(port), "-np", str(slots), "-c", str(slots * SLOT_TOKENS), "-t", str(THREADS),
             "-tb", str(THREADS), "--no-webui"]  # fmt: skip
    quiet = subprocess.DEVNULL
    process = await anyio.open_process([str(binary("llama-server")), *words], stdout=quiet, stderr=quiet)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # the server hangs up on idle ones
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=900, limits=limits) as client:
            while True:
                with anyio.move_on_after(1):
                    try:
                        if (await client.get("/health")).status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    await anyio.sleep(0.05)

            async def ask(messages: Messages, max_tokens: int, schema: dict[str, Any] | None) -> Reply:
                said: Any = [Message(role=role, content=content) for role, content in messages]  # type: ignore[arg-type]
                body = {
                    "prompt": renderer.render(said),
                    "n_predict": max_tokens,
                    "temperature": 0,
                    "cache_prompt": True,
                    "stream": True,
                    "ignore_eos": schema is None,
                    **({} if schema is None else {"json_schema": schema}),
                }
                began_s = time.perf_counter()
                first_s, text, last = 0.0, "", dict[str, Any]()
                async with client.stream("POST", "/completion", json=body) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: "):
                            last = json.loads(line[6:])
                            text += last["content"]
                            first_s = first_s or time.perf_counter() - began_s
                return Reply(text, last["tokens_evaluated"], last["tokens_predicted"], first_s)

            yield ask
    finally:
        process.kill()
        with anyio.CancelScope(shield=True):
            await process.wait()


async def main(peer: str, workload: str, model: str, seed: int) -> None:
    async with AsyncExitStack() as stack:
        if peer == "gx":
            ask = await stack.enter_async_context(gx(model))
        elif peer == "llama":
            ask = await stack.enter_async_context(llama(model))
        else:
            ask = await stack.enter_async_context(server(model, int(peer.removeprefix("server-"))))
        measured: list[Measured] = []
        for part in (seed, seed + 1000):
            measured.append(await play(WORKLOADS[workload](part), ask))
    sys.stdout.write(json.dumps([one._asdict() for one in measured]) + "\n")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
