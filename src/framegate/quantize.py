"""fp32 graphs -> int8 graphs: static quantization in QDQ form, in the flavour that CPUs run fast.

Asymmetric uint8 activations, int8 weights per channel, for what turns a frame into features: backbone and projection.
The recurrent cell and the head stay in fp32: their small matrix products gain nothing from int8, and the clip graph's
GRU or LSTM node has no int8 form, so that clip and iterated step would drift apart. Both graphs get the ranges found
on the step graph: with them they are equal to the last bit of every integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from framegate.contract import ParityError
from framegate.graph import quiet, readers_of, tidy

WEIGHTED = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")  # with a zero point these cost nothing: the quantized range ends where they cut
FEATURES = ("net.backbone.", "net.project.")  # names of weights start like this
CHUNK = 32  # clips that are calibrated at once

Ranges = dict[str, tuple[float, float]]


def quantize_graphs(step: ModelProto, clip: ModelProto, frames: NDArray[np.uint8]) -> tuple[ModelProto, ModelProto]:
    """The int8 step and clip graphs. frames: u8 [n,T,H,W,3], real clips of the training split."""
    ranges = calibrate(step, frames)
    twins = dict(zip(boundaries(clip), boundaries(step), strict=True))
    return quantize(step, ranges), quantize(clip, {mine: ranges[its] for mine, its in twins.items()})


def feature_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes that become int8: products with weights of the features, and the activations right behind them."""
    readers, chosen = readers_of(model), []
    for node in model.graph.node:
        if node.op_type in WEIGHTED and any(name.startswith(FEATURES) for name in node.input[1:]):
            chosen.append(node)
            chosen += [user for user in readers[node.output[0]] if user.op_type in ACTIVATIONS]
    if not chosen:
        raise ParityError("int8: the graph has no convolution or matrix product of backbone or projection to quantize")
    return chosen


def boundaries(model: ModelProto) -> list[str]:
    """The tensors that are quantized: the same net gives the same list, under other names, in both graphs."""
    return [name for node in feature_nodes(model) for name in (node.input[0], node.output[0])]


def calibrate(step: ModelProto, frames: NDArray[np.uint8]) -> Ranges:
    """Lowest and highest value of every quantized activation, over all frames, with the states of the fp32 graph."""
    import onnxruntime as ort

    names = list(dict.fromkeys(boundaries(step)))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        observed(step, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rows = np.array([_extremes(found) for found in rolled_out(session, frames, len(names))])  # [runs,names,2]
    low, high = rows[..., 0].min(0), rows[..., 1].max(0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def observed(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """A copy that also gives the lowest and the highest value of each named tensor."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for name in names:
        for reduce in ("ReduceMin", "ReduceMax"):
            output = f"{name}/{reduce}"
            copy.graph.node.append(helper.make_node(reduce, [name], [output], keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return copy


def rolled_out(session: Any, frames: NDArray[np.uint8], count: int) -> Iterator[list[Any]]:
    """The 2 * count observed values of every frame, each clip from a fresh state."""
    outputs = [output.name for output in session.get_outputs()]
    observed_outputs = outputs[len(outputs) - 2 * count :]
    size = session.get_inputs()[1].shape[1]
    for start in range(0, len(frames), CHUNK):
        chunk = frames[start : start + CHUNK]
        state = np.zeros((len(chunk), size), np.float32)
        for t in range(chunk.shape[1]):
            feed = {"frame": np.ascontiguousarray(chunk[:, t]), "state": state}
            state, *values = session.run(["next_state", *observed_outputs], feed)
            yield values


def _extremes(values: list[Any]) -> NDArray[np.float32]:
    """Observed values, lowest and highest in turn -> f32 [names,2]."""
    return np.array(values, np.float32).reshape(-1, 2)


def quantize(model: ModelProto, ranges: Ranges) -> ModelProto:
    """A QDQ copy of the graph with these ranges."""
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    nodes = feature_nodes(model)
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    copy = onnx.shape_inference.infer_shapes(model)
    with quiet(""):  # it tells the root logger of every activation that it folds away
        quantizer = QDQQuantizer(
            copy,
            True,  # per channel
            False,  # the full 8 bits
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            [node.name for node in nodes],
            [],
            [*WEIGHTED, *ACTIVATIONS],
            {},
        )
        quantizer.quantize_model()
    return tidy(cast(ModelProto, quantizer.model.model))
