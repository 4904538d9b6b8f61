"""Inference past the framework's routing: a body in pieces, a client that leaves, headers twice, errors of the rim."""

import asyncio
import gzip
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from framegate.serve.connections import InFlight
from framegate.serve.guard import Guard, Rules
from framegate.serve.rest import Express
from tests.oip import frames_of, inferring, offline

VIDEO = frames_of(1)
BODY = json.dumps({"inputs": [{"name": "frame", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": VIDEO.tolist()}]})
WHOLE = BODY.encode()
GONE = {"type": "http.disconnect"}
Message = dict[str, Any]


def pieces(*parts: bytes, more: bool = False) -> list[Message]:
    """A body as uvicorn hands it on; `more`: its end is not among them."""
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": more or k < last} for k, part in enumerate(parts)]


def ask(received: Sequence[Message], *headers: tuple[bytes, bytes]) -> tuple[int, bytes, dict[str, int], list[float]]:
    """Status and body of the answer, what the tally counted, and what /metrics says of 499, 400 and refusals."""

    async def main() -> tuple[int, bytes, dict[str, int], list[float]]:
        async with inferring() as inference:
            metrics, sent, waiting = inference.engine.metrics, list[Message](), iter(received)
            refused = Rules(10**6, 10**6, refused=lambda error: metrics.request(Guard.path, str(error.status)))
            app = InFlight(metrics).around(Guard(Express(None, inference), refused), True)

            async def receive() -> Message:
                return next(waiting)

            async def send(message: Message) -> None:
                sent.append(message)

            path = "/v2/models/framegate/infer"
            await app({"type": "http", "method": "POST", "path": path, "headers": list(headers)}, receive, send)
            metrics.flush()
            counts = [
                metrics.registry.get_sample_value("framegate_requests_total", {"route": route, "outcome": outcome})
                for route, outcome in ((Express.path, "499"), (Express.path, "400"), (Guard.path, "400"))
            ]
            stats = inference.tally.statistics("framegate", inference.engine.current.version)["inference_stats"]
            told = {name: one["count"] for name, one in stats.items()}
            assert [one["type"] for one in sent] == ["http.response.start", "http.response.body"]
            return sent[0]["status"], sent[1]["body"], told, [one or 0 for one in counts]

    return asyncio.run(main())


@pytest.mark.parametrize("cuts", [(), (7,), (7, 7), (0, 300)])
def test_a_body_is_answered_whatever_pieces_it_comes_in(cuts: tuple[int, ...]) -> None:
    edges = [0, *cuts, len(WHOLE)]
    status, body, _, _ = ask(pieces(*(WHOLE[a:b] for a, b in itertools.pairwise(edges))))
    assert status == 200
    np.testing.assert_allclose(json.loads(body)["outputs"][0]["data"], offline(VIDEO)[0], rtol=1e-6)


def test_a_client_that_leaves_before_the_end_of_its_body_is_not_stepped() -> None:
    """Although what came is a whole request."""
    status, _, told, counts = ask([*pieces(WHOLE, more=True), GONE])
    assert status == 499
    assert told == {"success": 0, "fail": 0}
    assert counts == [1, 0, 0]


def test_of_repeated_headers_the_first_counts() -> None:
    name, size = b"inference-header-content-length", str(len(WHOLE)).encode()
    assert ask(pieces(WHOLE), (name, size), (name, b"3"))[0] == 200
    assert ask(pieces(WHOLE), (name, b"3"), (name, size))[0] == 400


def test_what_the_rim_finds_wrong_while_the_body_is_read_is_told_once() -> None:
    damaged = gzip.compress(WHOLE)[:-8] + bytes(8)  # another checksum
    length = (b"content-length", str(len(damaged)).encode())
    status, body, told, counts = ask(pieces(damaged), (b"content-encoding", b"gzip"), length)
    assert status == 400
    assert "not gzip" in json.loads(body)["error"]
    assert told == {"success": 0, "fail": 0}
    assert counts == [0, 0, 1]
