"""Foreign models: what goes in, what is said of them, and what becomes of those that go wrong."""

import importlib.util
import json
import math
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from framegate.bench.foreign import command
from framegate.bench.foreign.facts import Bounded, Found, Settings, differences, sentence, throughput, verdict
from framegate.bench.foreign.files import external_files, size_bytes
from framegate.bench.foreign.inputs import draw, from_file, made_up, parse_shape, settle_shapes, why_not_same
from framegate.bench.foreign.page import aligned, number_of, page
from framegate.cli import main
from framegate.contract import ConfigError, DataError, FramegateError, RuntimeUnavailable
from framegate.runtime.raw import Declared, ModelError, open_raw

OPENVINO = ["openvino"] if importlib.util.find_spec("openvino") else []
QUICK = ("--processes", "2", "--pairs", "2", "--calls", "20")
FLOAT, HALF, INT64, BOOL, TEXT = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)


def save(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict | None = None, opset: int = 18) -> Path:
    """An ONNX file; inputs and outputs are name -> (type, shape)."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    values = [[helper.make_tensor_value_info(name, *of) for name, of in side.items()] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *values, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), str(path))
    return path


def product(path: Path, width: int = 8, times: int = 1, scale: float = 1.0, kind: int = FLOAT, x: str = "x") -> Path:
    """y = x @ W @ ... (`times`), x [N, width]."""
    weights = np.eye(width) * scale ** (1 / times)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    names = [x, *(f"h{n}" for n in range(1, times)), "y"]
    nodes = [helper.make_node("MatMul", [a, f"w{n}"], [b]) for n, (a, b) in enumerate(pairwise(names))]
    shape = (kind, ["N", width])
    return save(path, nodes, {x: shape}, {"y": shape}, {f"w{n}": weights.astype(dtype) for n in range(times)})


def mixed(path: Path) -> Path:
    """Four dtypes in, two outputs: `whole` int64 = ids + 1; `real` float32 = half where mask, else pixels."""
    nodes = [
        helper.make_node("Add", ["ids", "one"], ["whole"]),
        helper.make_node("Cast", ["half"], ["wide"], to=FLOAT),
        helper.make_node("Cast", ["pixels"], ["bright"], to=FLOAT),
        helper.make_node("Where", ["mask", "wide", "bright"], ["real"]),
    ]
    inputs = {
        "half": (HALF, ["N", 4]),
        "ids": (INT64, ["N", "L"]),
        "mask": (BOOL, ["N", 1]),
        "pixels": (TensorProto.UINT8, ["N", 4]),
    }
    return save(path, nodes, inputs, {"whole": (INT64, ["N", "L"]), "real": (FLOAT, ["N", 4])}, {"one": np.int64([1])})


def bench(*words: object) -> int:
    """Exit code of `framegate bench`; what it prints is for capsys."""
    try:
        main(["bench", *map(str, words)])
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code)
            return 1
        return int(stop.code or 0)
    return 0


def declared(name: str, dtype: str, *shape: int | str | None) -> Declared:
    return Declared(name=name, dtype=dtype, shape=shape)


def bounded(value: float | None, low: float | None = None, high: float | None = None) -> Bounded:
    return Bounded(value=value, low=low, high=high)


# --- what goes in -----------------------------------------------------------------------------


def test_a_dynamic_axis_is_one_unless_told_and_a_named_one_is_the_same_everywhere() -> None:
    inputs = [declared("a", "float32", "N", 3, None), declared("b", "int64", "N", "M"), declared("c", "bool")]
    assert settle_shapes(inputs, {}) == (
        {"a": (1, 3, 1), "b": (1, 1), "c": ()},
        ("a: axis 0 (N)", "a: axis 2", "b: axis 0 (N)", "b: axis 1 (M)"),
    )
    shapes, assumed = settle_shapes(inputs, {"a": (4, 3, 7)})
    assert shapes == {"a": (4, 3, 7), "b": (4, 1), "c": ()} and assumed == ("b: axis 1 (M)",)


def test_shapes_that_cannot_be_are_all_reported() -> None:
    inputs = [declared("a", "float32", "N", 3), declared("b", "int64", "N", 2), declared("c", "int64", 5)]
    with pytest.raises(
        ConfigError, match=r"of b: axis N is 3 here and 2 elsewhere; .* of c: got \[4\], expected int64 \[5\]"
    ):
        settle_shapes(inputs, {"a": (2, 3), "b": (3, 2), "c": (4,)})
    assert parse_shape("a=b:0=1,3") == ("a=b:0", (1, 3)) and parse_shape("x=") == ("x", ())
    for wrong in ("x", "=1,2", "x=1,two", "x=0,3", "x=1,,2"):
        with pytest.raises(ConfigError, match="expected name=1,3,224,224"):
            parse_shape(wrong)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "uint8", "int8", "int32", "int64", "uint16", "bool"]
)
def test_made_up_values_fit_their_dtype(dtype: str) -> None:
    found = draw(declared("x", dtype, 200), (200,), 0, "x")
    assert found.dtype == dtype and len(np.unique(found)) > 1 and np.isfinite(found).all()
    low, high = {"f": (0, 1), "b": (0, 1)}.get(found.dtype.kind, (0, 1) if found.itemsize > 1 else (-128, 255))
    assert low <= found.min() and found.max() <= high
    assert np.array_equal(found, draw(declared("x", dtype, 200), (200,), 0, "x"))
    assert not np.array_equal(found, draw(declared("x", dtype, 200), (200,), 1, "x"))


@pytest.mark.parametrize("dtype", ["string", "bfloat16", "complex64", "seq(tensor(float))"])
def test_what_cannot_be_made_up_says_so(dtype: str) -> None:
    way = "only tensors can be given" if dtype.startswith("seq") else "give --input"
    with pytest.raises(ConfigError, match=f"no values can be made up for it; {way}"):
        draw(declared("x", dtype, 1), (1,), 0, "x")


def test_an_input_file_is_checked_and_all_differences_are_listed(tmp_path: Path) -> None:
    path, inputs = (
        tmp_path / "in.npz",
        [declared("a", "float32", "N", 3), declared("b", "int64", 2), declared("c", "bool")],
    )
    np.savez(path, a=np.zeros((2, 4), np.float64), b=np.zeros(2, np.int64), d=np.zeros(1, np.uint8))
    with pytest.raises(DataError) as error:
        from_file(path, Path("m.onnx"), inputs)
    assert str(error.value).splitlines()[1:] == [
        "  a: got float64 [2,4], expected float32 [N,3]",
        "  c: missing, expected bool []",
        "  d: got uint8 [1], the model has no such input",
    ]
    np.savez(path, a=np.ones((2, 3), ">f4"), b=np.zeros(2, np.int64), c=np.True_)
    found = from_file(path, Path("m.onnx"), inputs).arrays
    assert found["a"].dtype == np.float32 and found["a"].dtype.isnative and (found["a"] == 1).all()


@pytest.mark.parametrize("content", [b"", b"no npz", None])
def test_an_input_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "in.npz"
    if content is None:
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path = path.with_suffix(".npy")
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path.name}: not an npz"):
        from_file(path, Path("m.onnx"), [])


def test_an_fp16_twin_is_asked_the_same_and_another_model_is_not() -> None:
    def arrays(dtype: str, name: str = "x", keys: dict | None = None, width: int = 50_000) -> dict:
        return made_up([declared(name, dtype, width)], {}, 0, keys or {}).arrays

    assert why_not_same(arrays("float32"), arrays("float16")) == ""
    assert why_not_same(arrays("float32"), arrays("float32", "image", {"image": "x"})) == ""
    assert "x has other values in B" in why_not_same(arrays("float32"), arrays("uint8"))
    assert "float32 [50000] in A and float32 [6] in B" in why_not_same(arrays("float32"), arrays("float32", width=6))
    both = arrays("float32") | arrays("float32", "y")
    assert why_not_same(arrays("float32"), both).startswith("A takes x float32 [50000]; B takes x")


# --- the runtimes -----------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["ort-cpu", *OPENVINO])
def test_any_dtype_and_several_outputs_are_computed(tmp_path: Path, runtime: str) -> None:
    path = mixed(tmp_path / "m.onnx")
    feeds = {
        "half": np.full((2, 4), 0.5, np.float16),
        "ids": np.array([[1, 2, 3], [4, 5, 6]]),
        "mask": np.array([[True], [False]]),
        "pixels": np.full((2, 4), 200, np.uint8),
    }
    session = open_raw(path, runtime, 1, {name: array.shape for name, array in feeds.items()})
    assert [one.name for one in session.outputs] == ["whole", "real"] and session.info.runtime == runtime
    whole, real = session.run(feeds)
    session.run(feeds | {"ids": feeds["ids"] * 0})
    assert whole.dtype == np.int64 and np.array_equal(whole, feeds["ids"] + 1)
    assert np.array_equal(real, [[0.5] * 4, [200] * 4])


def test_what_a_file_declares_is_read_as_it_stands(tmp_path: Path) -> None:
    session = open_raw(mixed(tmp_path / "m.onnx"), "ort-cpu", 2, {})
    assert session.inputs[1] == declared("ids", "int64", "N", "L") and session.inputs[0].dtype == "float16"
    assert session.info.threads == 2 and session.info.provider == "CPUExecutionProvider"


def test_an_unknown_runtime_and_one_for_bundles_only_are_refused(tmp_path: Path) -> None:
    for runtime, words in (("openvno", "did you mean 'openvino'"), ("tensorrt", "opens no foreign ONNX file")):
        with pytest.raises(RuntimeUnavailable, match=words):
            open_raw(tmp_path / "m.onnx", runtime, 1, {})


def test_a_file_that_does_not_open_is_its_own_fault(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"no graph")
    unknown = [helper.make_node("Conjure", ["x"], ["y"])]
    shape = {"x": (FLOAT, [1])}, {"y": (FLOAT, [1])}
    save(tmp_path / "op.onnx", unknown, *shape)
    save(tmp_path / "opset.onnx", [helper.make_node("Relu", ["x"], ["y"])], *shape, opset=99)
    for name, words in (("junk", "Protobuf parsing failed"), ("op", "Conjure"), ("opset", "pset 99")):
        with pytest.raises(ModelError, match=rf"cannot open .*{name}\.onnx: .*{words}"):
            open_raw(tmp_path / f"{name}.onnx", "ort-cpu", 1, {})


# --- what is said -----------------------------------------------------------------------------


def test_faster_slower_and_what_cannot_be_told() -> None:
    assert verdict(bounded(0.9, 0.85, 0.97), 0.02) == "faster"
    assert verdict(bounded(0.9, 0.85, 0.98), 0.02) == "cannot tell"
    assert verdict(bounded(1.1, 1.03, 1.2), 0.02) == "slower"
    assert verdict(bounded(1.1, 1.02, 1.2), 0.02) == "cannot tell"
    assert verdict(bounded(0.5), 0.02) == verdict(bounded(None), 0.02) == "cannot tell"


@given(st.floats(0.2, 5), st.floats(1, 1.5), st.floats(1, 1.5), st.floats(0.001, 0.5))
def test_the_verdict_turns_round_when_the_models_change_places(x: float, down: float, up: float, margin: float) -> None:
    low, high = x / down, x * up
    if min(abs(high - (1 - margin)), abs(low - 1 / (1 - margin))) < 1e-9:
        return  # on the edge, where 1 / x rounds
    here, there = verdict(bounded(x, low, high), margin), verdict(bounded(1 / x, 1 / high, 1 / low), margin)
    assert (here, there) in [("faster", "slower"), ("slower", "faster"), ("cannot tell", "cannot tell")]


def test_the_sentence_says_how_much_and_what_would_help() -> None:
    def said(value: float | None, low: float | None = None, high: float | None = None, pairs: int = 10) -> str:
        found = bounded(value, low, high)
        return sentence(found, 0.02, verdict(found, 0.02), pairs)

    assert said(0.5, 0.4, 0.8) == "A is faster than B: 2.00 times as fast (between 1.25 and 2.50)."
    assert said(2.0, 1.9, 2.1) == "A is slower than B: it takes 2.00 times as long (between 1.90 and 2.10)."
    assert said(1.0, 0.99, 1.01).startswith("Cannot tell them apart") and "more than 2 % is ruled out" in said(
        1.0, 0.99, 1.01
    )
    assert "--pairs 40 or a quieter machine" in said(1.0, 0.9, 1.1) and "bounds nothing" in said(0.9, pairs=1)


def test_outputs_are_compared_by_name_and_shape() -> None:
    a = {"y": np.float32([1, 2]), "z": np.zeros(3), "mine": np.zeros(1)}
    b = {"y": np.float16([1, 2.5]), "z": np.zeros(4), "theirs": np.zeros(1)}
    (found,), skipped = differences(a, b)
    assert (found.max_abs, found.scale, found.same) == (0.5, 2.5, False)
    assert differences({"y": np.float32([1e-9])}, {"y": np.float16([0])})[0][0].same
    assert not differences({"y": np.float32([1e-3])}, {"y": np.float16([0])})[0][0].same
    assert skipped == ("mine is only in A", "theirs is only in B", "z is [3] in A and [4] in B")


def test_a_nan_in_one_model_alone_is_a_difference_and_in_both_is_none() -> None:
    one, two = {"y": np.array([1.0, math.nan])}, {"y": np.array([1.0, 2.0])}
    assert differences(one, two)[0][0].max_abs == math.inf and not differences(two, one)[0][0].same
    assert differences(one, one)[0][0].same
    assert differences({"y": np.array([True])}, {"y": np.array([False])})[0][0].max_abs == 1


def test_throughput_is_calls_over_time_with_bounds_over_processes() -> None:
    ns = np.array([[1_000_000] * 4, [2_000_000] * 4])
    found = throughput(ns)
    assert found.value == 750 and found.low < 750 < found.high and throughput(ns[:1]).low is None


def test_numbers_and_columns_line_up() -> None:
    assert [number_of(x) for x in (0.036284, 1.5, 1234.5678, 0)] == ["0.03628", "1.500", "1,235", "0"]
    assert number_of(0.9, like=12.0) == "0.90"
    assert len({len(line) for line in aligned([("a", "1 ms", "x"), ("long", "1,000 ms", "1 … 2")])}) == 1


# --- the command ------------------------------------------------------------------------------


def test_one_model_gives_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mixed(tmp_path / "m.onnx")
    assert bench(path, *QUICK, "--shape", "ids=1,5", "--json", "-o", tmp_path / "out") == 0
    told = json.loads(capsys.readouterr().out)
    found = Found.read(tmp_path / "out" / "bench.json")
    assert told == json.loads(found.to_json()) and found.comparison is None and not found.stopped
    (one,) = found.models
    assert [str(o.dtype) + str(list(o.shape)) for o in one.outputs] == ["int64[1, 5]", "float32[1, 4]"]
    assert one.processes == 2 and one.calls == 40 and one.p50_ms.value > 0 and one.p99_ms.value is None
    assert one.size_bytes == path.stat().st_size and one.memory_bytes > one.runtime_memory_bytes > 1e7
    assert one.session["provider"] == "CPUExecutionProvider" and one.assumed == ()
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        assert samples["solo_ns"].shape == (2, 20)
    text = page(found)
    assert "ids int64 [1,5]" in text and "p99 of one process takes 662 calls, here 20; --calls 662" in text
    assert "have bounds from 10 processes on; --processes 10" in text


@pytest.mark.parametrize(
    ("runtime", "names", "code", "said"),
    [
        ("ort-cpu", ("light", "heavy"), 0, "A is faster than B"),
        *((name, ("heavy", "light"), 2, "A is slower than B") for name in OPENVINO),
    ],
)
def test_of_two_the_lighter_is_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str, names: tuple[str, str], code: int, said: str
) -> None:
    paths = [product(tmp_path / f"{name}.onnx", 256, times={"light": 1, "heavy": 60}[name]) for name in names]
    more = ("--processes", 1, "--pairs", 2, "--calls", 11, "--runtime", runtime, "-o", tmp_path / "out")
    assert bench(*paths, *more) == code
    out = capsys.readouterr().out
    assert (
        said in out
        and "Their outputs agree within 1 %: y equal." in out
        and "x: axis 0 (N)" in out
        and f"runtime  {runtime} " in out
    )
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        assert set(samples) == {"solo_ns", "parent_solo_ns", "candidate_ns", "parent_ns", "candidate_first"}
        assert samples["candidate_ns"].shape == samples["parent_ns"].shape == (2, 8, 50)


def test_a_model_against_itself_cannot_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = product(tmp_path / "m.onnx", 128, times=4)
    assert bench(path, path, "--processes", 1, "--pairs", 2, "--calls", 11, "--margin", 0.5) == 3
    assert "Their outputs agree within 1 %: y equal." in capsys.readouterr().out


def test_a_model_that_computes_something_else_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = product(tmp_path / "a.onnx"), product(tmp_path / "b.onnx", scale=1.1, kind=HALF, x="image")
    bench(one, two, "--processes", 1, "--pairs", 1, "--calls", 11)
    out = capsys.readouterr().out
    assert "DIFFER by more than 1 %: y off by at most 0.0" in out and "(0.091 of the largest value)" in out
    assert "one pair of processes bounds nothing" in out


def test_an_input_file_is_what_the_model_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Identity", ["t"], ["u"])
    path = save(tmp_path / "text.onnx", [node], {"t": (TEXT, ["N"])}, {"u": (TEXT, ["N"])})
    assert bench(path, *QUICK) == 1 and "is string: no values can be made up" in capsys.readouterr().out
    np.savez(tmp_path / "in.npz", t=np.array(["a", "bc"]))
    assert bench(path, "--processes", 1, "--calls", 11, "--input", tmp_path / "in.npz") == 0
    out = capsys.readouterr().out
    assert f"; {tmp_path / 'in.npz'}" in out and "u no array of numbers []" in out
    assert bench(path, *QUICK, "--input", tmp_path / "in.npz", "--shape", "t=2") == 1
    assert bench(path, *QUICK, "--shape", "s=2") == 1 and "no such input" in capsys.readouterr().out


def test_a_model_that_takes_any_rank_is_given_what_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(
        tmp_path / "M.ONNX", [helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, None)}, {"y": (FLOAT, None)}
    )
    assert bench(path, *QUICK, "--shape", "x=1,3", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)["models"]
    assert one["outputs"][0]["shape"] == [1, 3]


def test_external_data_counts_and_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(str(product(tmp_path / "m.onnx", 64)))
    name = "weights of " + 140 * "m" + ".bin"  # a length of two bytes
    onnx.save(model, str(tmp_path / "e.onnx"), save_as_external_data=True, location=name, size_threshold=0)
    path = tmp_path / "e.onnx"
    assert external_files(path) == {tmp_path / name}
    assert size_bytes(path) == path.stat().st_size + 64 * 64 * 4
    assert bench(path, "--processes", 1, "--calls", 11) == 0
    (tmp_path / name).unlink()
    capsys.readouterr()
    assert bench(path, *QUICK) == 1 and "e.onnx" in capsys.readouterr().out


def test_outputs_that_are_not_finite_are_said_and_not_fatal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Log", ["n"], ["y"])]
    path = save(tmp_path / "nan.onnx", nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])})
    assert bench(path, "--processes", 1, "--calls", 11) == 0
    assert "output y: 3 of 3 values are not finite." in capsys.readouterr().out


def test_inputs_that_a_model_cannot_take_are_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["N"])}, {"y": (FLOAT, [2, 3])}, {"shape": np.array([2, 3])})
    assert bench(path, *QUICK) == 1 and "m.onnx: does not run on these inputs" in capsys.readouterr().out
    assert bench(path, "--processes", 1, "--calls", 11, "--shape", "x=6") == 0


def test_a_model_that_hangs_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info(n, *of)
            for n, of in {"i": (INT64, []), "on": (BOOL, []), "v": (FLOAT, [1])}.items()
        ],
        [helper.make_tensor_value_info(n, *of) for n, of in {"still": (BOOL, []), "w": (FLOAT, [1])}.items()],
    )
    loop = helper.make_node("Loop", ["many", "", "x"], ["y"], body=body)
    path = save(tmp_path / "m.onnx", [loop], {"x": (FLOAT, [1])}, {"y": (FLOAT, [1])}, {"many": np.int64(10**15)})
    assert bench(path, *QUICK, "--timeout", 1.5) == 1
    assert re.search("m.onnx: the try process of ort-cpu ran longer than .*1.5 s", capsys.readouterr().out)


def worker_that(does: str) -> tuple[str, ...]:
    """The real worker, but a pair process with seed 1 `does` something first."""
    code = (
        "import os, signal, sys, time; from pathlib import Path; from framegate.bench.foreign import worker as w; "
        "job = w.ForeignJob.read(Path(sys.argv[1])); "
        f"(job.kind, job.seed) == ('pair', 1) and {does}; w.main(sys.argv[1:])"
    )
    return sys.executable, "-c", code


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the pair process of ort-cpu was killed by SIGSEGV"),
        ("(os.kill(os.getppid(), signal.SIGINT), time.sleep(20))", "interrupted"),
    ],
)
def test_what_was_measured_before_a_stop_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], does: str, reason: str
) -> None:
    monkeypatch.setattr(command, "WORKER", worker_that(does))
    path = product(tmp_path / "m.onnx")
    assert bench(path, path, "--processes", 2, "--pairs", 2, "--calls", 11, "-o", tmp_path / "out") == 1
    assert f"Stopped: {reason}. What follows is what was measured until then." in capsys.readouterr().out
    found = Found.read(tmp_path / "out" / "bench.json")
    assert found.stopped == reason and found.comparison.pairs == 1 and [m.processes for m in found.models] == [2, 2]
    with np.load(tmp_path / "out" / "samples.npz") as samples:
        assert samples["solo_ns"].shape == (2, 11) and samples["candidate_ns"].shape == (1, 8, 50)


def test_files_and_options_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = product(tmp_path / "m.onnx")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "folder.onnx").mkdir()
    for words, expected in (
        ([tmp_path / "none.onnx"], "no such file"),
        ([tmp_path / "empty.onnx"], "empty; expected an ONNX file"),
        ([tmp_path / "folder.onnx"], "a folder; expected an ONNX file"),
        ([path, path, path], "expected one or two"),
        ([path, "--pairs", 0, "--margin", 2], r"pairs: .*; margin: "),
        ([path, "--runtime", "ort-gpu"], "runtime 'ort-gpu' is unknown; did you mean"),
    ):
        assert bench(*words) == 1
        assert re.search(expected, capsys.readouterr().out), expected


def test_a_bench_without_any_finished_process_still_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = "import sys; from framegate.bench.foreign import worker as w; 'solo' in open(sys.argv[1]).read() and sys.exit(7); w.main(sys.argv[1:])"
    monkeypatch.setattr(command, "WORKER", (sys.executable, "-c", dies))
    found, timings = command.measure([product(tmp_path / "m.onnx")], Settings(processes=2), {})
    assert "ended with exit code 7" in found.stopped and timings.arrays() == {}
    assert "Nothing was timed." in page(found)
    with pytest.raises(FramegateError, match="expected one or two"):
        command.measure([], Settings(), {})
