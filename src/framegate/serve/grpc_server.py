"""The gRPC server: ports, TLS, sizes of messages, and the check of keys before a call is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from framegate.contract import ConfigError
from framegate.serve.grpc_service import Service, end, handlers
from framegate.serve.infer import Inference
from framegate.serve.peers import Peers

PENDING = 1 << 16  # calls that came and were not looked at yet
HEALTH = frozenset(f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ServerReady"))
Check = Callable[[str | None], bool]


def key_of(sent: Any) -> str | None:
    """The key in a call's metadata: `authorization: Bearer KEY` or `x-api-key: KEY`."""
    values = {key: value for key, value in sent or () if isinstance(value, str)}
    scheme, _, key = values.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else values.get("x-api-key")


class Keys(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without a key that `check` knows; liveness and readiness need none."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], call: Any) -> Any:
        """The handler of a call, or one that refuses it."""
        handler = await continuation(call)
        if handler is None or call.method in HEALTH or self._check(key_of(call.invocation_metadata)):
            return handler
        wrap = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return wrap(_refuse)


async def _refuse(request: Any, context: Any) -> None:
    end(
        context,
        "UNAUTHENTICATED",
        "no valid key; send the metadata 'authorization: Bearer KEY' or 'x-api-key: KEY'",
    )


def make_server(
    inference: Inference,
    address: str,
    *,
    check: Check | None = None,
    credentials: Any | None = None,
    reuse_port: bool = False,
    peers: Peers | None = None,
    counted: bool = True,
) -> tuple[Any, int]:
    """A grpc.aio.Server that is bound and not yet started, and its port; call it on the loop that will run it.

    `address`: host:port or unix:path; `check`: which keys are valid, None for no keys; `credentials`: those of
    grpc.ssl_server_credentials for TLS; `peers`: where a sequence of another worker's goes; `counted`: in the metrics.
    Raises ConfigError where the address cannot be bound. `await server.stop(seconds)` lets accepted calls finish.
    """
    options = (
        ("grpc.max_receive_message_length", inference.engine.limits.max_request),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(reuse_port)),
        # of a burst, gRPC would cancel what is beyond a thousand; whether there is time for it is ours to say
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
    )
    server = grpc.aio.server(interceptors=[Keys(check)] if check else [], options=options)
    server.add_generic_rpc_handlers((handlers(Service(inference, peers, counted)),))
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"gRPC cannot listen on {address}: {error}; choose another --grpc-port") from None
    return server, bound
