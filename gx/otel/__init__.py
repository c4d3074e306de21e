"""Runs as OpenTelemetry has them: traces and metrics, drawn from events; loaded where it is asked for.

`tracing` and `measuring` fold events, `otlp` makes OTLP's bytes of what they give, `collector` says where these go,
`post` takes them there. Which conventions hold is in `conventions`.
"""
