"""The names that traces and metrics are told in: OpenTelemetry's semantic conventions for generative AI, v1.41.1.

https://github.com/open-telemetry/semantic-conventions/tree/v1.41.1/docs/gen-ai is their last release: from v1.42.0 on
they live in a repository of their own, which has released none yet. They are in development, so names change between
versions; this is the only file that has them. What they have no name for is called `gx.…`.
"""

from __future__ import annotations

VERSION = "1.41.1"
SCHEMA = f"https://opentelemetry.io/schemas/{VERSION}"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
WORKFLOW = "gen_ai.workflow.name"
AGENT = "gen_ai.agent.name"
OUTPUT_TYPE = "gen_ai.output.type"
MODEL = "gen_ai.request.model"
SEED = "gen_ai.request.seed"
MAX_TOKENS = "gen_ai.request.max_tokens"
TEMPERATURE = "gen_ai.request.temperature"
TOP_K = "gen_ai.request.top_k"
TOP_P = "gen_ai.request.top_p"
PRESENCE = "gen_ai.request.presence_penalty"
FREQUENCY = "gen_ai.request.frequency_penalty"
FINISH = "gen_ai.response.finish_reasons"
TOKENS_IN = "gen_ai.usage.input_tokens"
TOKENS_OUT = "gen_ai.usage.output_tokens"
TOKENS_CACHED = "gen_ai.usage.cache_read.input_tokens"
TOKEN_TYPE = "gen_ai.token.type"
ERROR = "error.type"

GX = "gx"
"""The provider: no well-known one fits models that gx itself runs."""

CHAT = "chat"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"

TOKEN_USAGE = "gen_ai.client.token.usage"
TOKEN_BOUNDS = tuple(float(4**n) for n in range(14))
"""1 to 67,108,864, as docs/gen-ai/gen-ai-metrics.md says for that histogram."""
OPERATION_DURATION = "gen_ai.client.operation.duration"
DURATION_BOUNDS = tuple(round(0.01 * 2**n, 2) for n in range(14))
"""0.01 to 81.92 s, from the same page."""
