"""VideoNet -> the two ONNX graphs of a bundle. Here: tracing, rewriting, checking. Not here: precisions, parity, files.

The graphs are a function of the net alone: no names of files or machines, the same bytes every time.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, cast

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor, nn

from framegate.contract import ClipSpec, GraphSpec, ParityError, TensorSpec
from framegate.models.video import VideoNet, run_clip, step

DTYPES: dict[int, Literal["uint8", "float32"]] = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}


class StepGraph(nn.Module):
    """frame u8 [N,H,W,3], state f32 [N,S] -> logits f32 [N,K], next_state f32 [N,S] (, embedding f32 [N,E])."""

    def __init__(self, net: VideoNet, embedding: bool) -> None:
        super().__init__()
        self.net, self.embedding = net, embedding

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        logits, after, embedding = step(self.net, frame, state)
        return (logits, after, embedding) if self.embedding else (logits, after)


class ClipGraph(nn.Module):
    """frames u8 [N,T,H,W,3] -> logits f32 [N,K] after the last frame."""

    def __init__(self, net: VideoNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        return run_clip(self.net, frames)[0][:, -1]


class GlobalMean(nn.Module):
    """f32 [B,C,H,W] -> [B,C,1,1].

    What `AdaptiveAvgPool2d(1)` computes; that one exports to a chain of nine nodes when its input is channels last.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def trace_step(net: VideoNet, clip: ClipSpec, opset: int, embedding: bool) -> ModelProto:
    """The step graph. Raises ParityError unless N is symbolic."""
    net = exportable(net)
    frame = torch.zeros(2, clip.height, clip.width, 3, dtype=torch.uint8)
    n = torch.export.Dim("N")
    outputs = ["logits", "next_state", "embedding"][: 3 if embedding else 2]
    inputs = {"frame": frame, "state": net.init_state(2)}
    model = trace(StepGraph(net, embedding), inputs, outputs, {"frame": {0: n}, "state": {0: n}}, opset)
    sizes = {"N": (0,)}
    return check_symbolic(model, {"frame": sizes, "state": sizes} | dict.fromkeys(outputs, sizes))


def trace_clip(net: VideoNet, clip: ClipSpec, opset: int) -> ModelProto:
    """The clip graph. Raises ParityError unless N and T are symbolic."""
    frames = torch.zeros(2, 3, clip.height, clip.width, 3, dtype=torch.uint8)
    axes = {0: torch.export.Dim("N"), 1: torch.export.Dim("T")}
    model = trace(ClipGraph(exportable(net)), {"frames": frames}, ["logits"], {"frames": axes}, opset)
    return check_symbolic(model, {"frames": {"N": (0,), "T": (1,)}, "logits": {"N": (0,)}})


def exportable(net: VideoNet) -> VideoNet:
    """A copy in eval mode on the CPU, with every pooling to 1x1 written as a mean."""
    copy = deepcopy(cast(nn.Module, net)).cpu().eval()
    for module in list(copy.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, GlobalMean())
    return cast(VideoNet, copy)


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], axes: Mapping[str, Any], opset: int
) -> ModelProto:
    """Export with torch's dynamo exporter, tidied and rewritten."""
    # The second nn.GRU or nn.LSTM with a dynamic T in one process bakes T in, or fails (pytorch#191855): its
    # decomposition is cached with the sizes of the first.
    for overload in (torch.ops.aten.gru.input, torch.ops.aten.lstm.input):
        overload._dispatch_cache.clear()
    with quiet("onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what matters is checked afterwards
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=dict(axes),
            verbose=False,
        )
    return rewrite(tidy(cast(Any, program).model_proto))


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Only errors from these loggers: the exporter tells of every node that it leaves alone."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    try:
        for logger in found:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)


def tidy(model: ModelProto) -> ModelProto:
    """Take out, in place, what is not the function: stack traces, source paths, intermediate shapes."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.ClearField("metadata_props")
        holder.doc_string = ""
    graph.ClearField("value_info")
    graph.name = "framegate"
    return model


def check_symbolic(model: ModelProto, wanted: Mapping[str, Mapping[str, tuple[int, ...]]]) -> ModelProto:
    """The model. ParityError when an axis has a number where its letter is wanted."""
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for name, letters in wanted.items():
        dims = values[name].type.tensor_type.shape.dim
        for letter, places in letters.items():
            for place in places:
                if dims[place].dim_param != letter:
                    got = dims[place].dim_param or dims[place].dim_value
                    raise ParityError(f"export: axis {place} of {name!r} is {got!r}, expected the symbol {letter!r}")
    return model


def graph_spec(model: ModelProto) -> GraphSpec:
    """Names, types and shapes of the graph's inputs and outputs."""

    def spec(value: Any) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
        return TensorSpec(name=value.name, dtype=DTYPES[tensor.elem_type], shape=shape)

    return GraphSpec(inputs=tuple(map(spec, model.graph.input)), outputs=tuple(map(spec, model.graph.output)))


# --- rewriting --------------------------------------------------------------------------------


def rewrite(model: ModelProto) -> ModelProto:
    """The same function in fewer, better supported nodes, in place."""
    pool_means(model)
    fold_pixel_scale(model)
    drop_unused(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def pool_means(model: ModelProto) -> None:
    """ReduceMean over H and W -> GlobalAveragePool: runtimes have blocked and int8 kernels for it."""
    constants = constants_of(model)
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        kept = {a.name: a.i for a in node.attribute}.get("keepdims", 1)
        if kept and sorted(constants[node.input[1]].tolist()) in ([2, 3], [-2, -1]):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]


def fold_pixel_scale(model: ModelProto) -> None:
    """Fold the division of pixels by their deviation into the weights of the convolution that reads them."""
    constants, readers = constants_of(model), readers_of(model)
    for node in list(model.graph.node):
        if node.op_type != "Div" or constants.get(node.input[1], np.zeros(2)).size != 1:
            continue
        users = readers[node.output[0]]
        if users and all(user.op_type == "Conv" and user.input[0] == node.output[0] for user in users):
            for conv in users:
                weight = (constants[conv.input[1]] / constants[node.input[1]]).astype(np.float32)
                replace_constant(model, conv.input[1], weight)
                conv.input[0] = node.input[0]
            model.graph.node.remove(node)


def constants_of(model: ModelProto) -> dict[str, Any]:
    """Initializers by name, as arrays."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def readers_of(model: ModelProto) -> dict[str, list[NodeProto]]:
    """For every tensor, the nodes that read it."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {output: readers.get(output, []) for node in model.graph.node for output in node.output} | readers


def replace_constant(model: ModelProto, name: str, value: Any) -> None:
    """Give an initializer another value."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))


def drop_unused(model: ModelProto) -> None:
    """Take out initializers that no node reads."""
    read = {name for node in model.graph.node for name in node.input}
    used = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
