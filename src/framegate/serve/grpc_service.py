"""The Open Inference Protocol v2 over gRPC: what each call answers. The server and its keys: grpc_server.

An error in a stream is a message, and the stream goes on. Answers of one sequence come in order; different sequences
of one stream are in work together, so that they are batched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial, wraps
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from framegate.serve import metadata
from framegate.serve.errors import BadRequest, NotOffered, Overloaded, ServeError, Stopping, UnknownModel
from framegate.serve.grpc_codec import decode_message, encode_message, parameters_of
from framegate.serve.infer import Inference
from framegate.serve.peers import PUSHBACK, Peers

PROTOCOL = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
IN_FLIGHT = 64  # requests of one stream that are in work; more wait in the client
NO_MESSAGE = "the request is no message of this method: its bytes cannot be parsed as protobuf"

log = logging.getLogger(__name__)
Call = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]
Bound = Callable[[Any, Any], Coroutine[Any, Any, Any]]
Parse = Callable[[bytes], Any]


def answering(method: Call) -> Call:
    """The call with its errors as gRPC says them, counted by outcome."""

    @wraps(method)
    async def call(self: Service, request: Any, context: Any) -> Any:
        try:
            response = await method(self, request, context)
        except Exception as error:
            return self.refuse(_told(error), context)
        self.count("OK")
        return response

    return call


def _told(error: Exception) -> ServeError:
    """What the client is told; what nobody foresaw goes to the log and stays there."""
    if isinstance(error, ServeError):
        return error
    log.error("a gRPC call failed", exc_info=error)
    return ServeError("internal error; the server's log says more")


def end(context: Any, code: str, details: str) -> None:
    """Make a call end with this status once it returns.

    Not by `context.abort`: the exception that it raises is kept by the call and knows, by its traceback, the call and
    its request, so that the memory of refused requests would come back with the collector only.
    """
    context.set_code(grpc.StatusCode[code])
    context.set_details(details)


def _ms(error: Overloaded) -> str:
    return str(max(1, round(1000 * error.retry_after_s)))


def handlers(service: Service) -> Any:
    """What a server calls for every method of the protocol.

    Made from the protocol's descriptor, not by the generated code: that one knows no method that is not there, and has
    a message that is none parsed by gRPC, which tells the client of a Python exception, and the log as well.
    """
    made = {}
    for method in PROTOCOL.methods:
        call = getattr(service, method.name, None) or partial(_not_offered(method.name), service)
        parse = getattr(pb, method.input_type.name).FromString
        serialize = getattr(pb, method.output_type.name).SerializeToString
        if method.client_streaming:
            streamed = _parsing_stream(service, call, parse)
            made[method.name] = grpc.stream_stream_rpc_method_handler(streamed, response_serializer=serialize)
        else:
            single = _parsing(service, call, parse)
            made[method.name] = grpc.unary_unary_rpc_method_handler(single, response_serializer=serialize)
    return grpc.method_handlers_generic_handler(PROTOCOL.full_name, made)


def _not_offered(name: str) -> Call:
    @answering
    async def call(self: Service, request: Any, context: Any) -> Any:
        raise NotOffered(f"{name} is not offered by this server")

    return call


def _parsing(service: Service, call: Bound, parse: Parse) -> Bound:
    """The call of a message as it came over the wire."""

    async def parsed(sent: bytes, context: Any) -> Any:
        try:
            message = parse(sent)
        except DecodeError:
            return service.refuse(BadRequest(NO_MESSAGE), context)
        return await call(message, context)

    return parsed


def _parsing_stream(service: Service, call: Bound, parse: Parse) -> Bound:
    """The same of a stream. What came before the message that is none is answered, then the stream ends."""

    async def parsed(sent: AsyncIterator[bytes], context: Any) -> None:
        damaged = False

        async def messages() -> AsyncIterator[Any]:
            nonlocal damaged
            async for one in sent:
                try:
                    message = parse(one)
                except DecodeError:
                    damaged = True
                    return
                yield message

        await call(messages(), context)
        if damaged:
            service.refuse(BadRequest(NO_MESSAGE), context)

    return parsed


class Service:
    """One method per call of the protocol; what is not here (loading, shared memory, tracing) is UNIMPLEMENTED."""

    def __init__(self, inference: Inference, peers: Peers | None = None, counted: bool = True) -> None:
        self.inference, self.engine, self.peers, self._counted = inference, inference.engine, peers, counted

    def count(self, outcome: str) -> None:
        """One call has its answer; what another worker handed on is counted there."""
        if self._counted:
            self.engine.metrics.request("grpc", outcome)

    def refuse(self, error: ServeError, context: Any) -> None:
        """Count a call, and make it end by an error once it returns."""
        self.count(error.grpc)
        if isinstance(error, Overloaded):
            context.set_trailing_metadata(((PUSHBACK, _ms(error)),))
        end(context, error.grpc, str(error))

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """The server answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """New work is welcome."""
        return pb.ServerReadyResponse(ready=self.engine.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """The model takes requests; an unknown one is not ready."""
        try:
            self.engine.find(request.name, request.version)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.engine.ready)

    @answering
    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Name, version and extensions of the server."""
        return ParseDict(metadata.server_metadata(), pb.ServerMetadataResponse())

    @answering
    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Tensors and versions of a model."""
        found = metadata.model_metadata(self.inference, request.name, request.version)
        return ParseDict(found, pb.ModelMetadataResponse())

    @answering
    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """The model's configuration, in Triton's terms."""
        config = metadata.model_config(self.inference, request.name, request.version)
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    @answering
    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """How many requests were answered and refused."""
        found = metadata.statistics(self.inference, request.name, request.version)
        return ParseDict(found, pb.ModelStatisticsResponse())

    @answering
    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        """Every open version."""
        return ParseDict({"models": metadata.repository_index(self.inference)}, pb.RepositoryIndexResponse())

    @answering
    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """One request, one answer."""
        return await self._infer(request, context)

    async def _infer(self, message: Any, context: Any, before: asyncio.Task[None] | None = None) -> Any:
        """`before`: the request before it of its sequence, which it could overtake on the way to another worker."""
        if self._counted:  # else another worker accepted it before
            self.engine.refuse_when_stopping()
        self.engine.refuse_when_overloaded()
        asked = decode_message(message)
        if self.peers and (owner := self.peers.elsewhere(asked.parameters)) is not None:
            if before is not None:
                await before
            return await self.peers.infer(owner, message, context.time_remaining())
        return encode_message(await self.inference.infer(asked, context.time_remaining()))

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> None:
        """Answers as they are ready, those of one sequence (or of none) in the order of their requests.

        When the server stops no more of them are read, those in work are answered, and the stream ends as UNAVAILABLE.
        """
        room, writing = asyncio.Semaphore(IN_FLIGHT), asyncio.Lock()
        last: dict[str, asyncio.Task[None]] = {}

        async def answer(key: str, message: Any, before: asyncio.Task[None] | None) -> None:
            response = await self._streamed(message, context, before)
            if before is not None:
                await before
            async with writing:
                await context.write(response)
            if last.get(key) is asyncio.current_task():
                del last[key]
            room.release()

        async def read(group: asyncio.TaskGroup) -> None:
            async for message in requests:
                await room.acquire()
                key = repr(parameters_of(message).get("sequence_id"))
                last[key] = group.create_task(answer(key, message, last.get(key)))

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read(group))
            stopping = group.create_task(self.engine.stopping.wait())
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            cut = reading.cancel()
            stopping.cancel()
        if cut:
            end(context, Stopping.grpc, str(Stopping()))

    async def _streamed(self, message: Any, context: Any, before: asyncio.Task[None] | None) -> Any:
        """One message of a stream answered."""
        try:
            response = await self._infer(message, context, before)
        except Exception as error:
            return self._refused(error)
        self.count("OK")
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    def _refused(self, error: Exception) -> Any:
        """The answer in a stream; a variable beside the message would hold it: an error knows its variables."""
        failed = _told(error)
        self.count(failed.grpc)
        return pb.ModelStreamInferResponse(error_message=str(failed))
