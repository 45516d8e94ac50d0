"""How both clients reach the service."""

from __future__ import annotations

DEFAULT_ENDPOINT = "127.0.0.1:50070"
"""Where `laps serve` listens unless it is told otherwise."""

OPTIONS = (
    # A proxy that is meant for the internet has no business before the service.
    ("grpc.enable_http_proxy", 0),
    # A listing of very many requests is larger than the default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
)
