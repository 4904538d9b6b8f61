"""`framegate triton-repo`: the repository is what the graphs are, or there is none."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from framegate.cli import main
from framegate.cli.triton_repo import kind_of, notes
from framegate.contract import Bundle, BundleError, BundleInfo, ConfigError, DataError, sha256_file, write_text
from framegate.runtime.raw import ModelError
from framegate.triton import write_repository
from tests.bundles import LABELS, make_bundle
from tests.promoted import A, B, contents, ship_of

TYPES = {"tensor(uint8)": pb.TYPE_UINT8, "tensor(float)": pb.TYPE_FP32}


def config(repository: Path, model: str) -> pb.ModelConfig:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), pb.ModelConfig())


def tensors(values: list) -> dict[str, tuple[int, list[int]]]:
    """Name -> Triton's type and dims without the batch, of a graph's inputs or outputs."""
    return {
        one.name: (TYPES[one.type], [axis if isinstance(axis, int) else -1 for axis in one.shape[1:]]) for one in values
    }


def declared(values: object) -> dict[str, tuple[int, list[int]]]:
    return {one.name: (one.data_type, list(one.dims)) for one in values}


def write(bundle: Bundle, out: Path, **changes: object) -> Path:
    write_repository(bundle, out, **{"name": "framegate", "kind": "cpu", "threads": 1, **changes})
    return out


def told(bundle: Bundle, change: Callable[[BundleInfo], dict]) -> Bundle:
    """The same files under another bundle.json."""
    info = bundle.info.model_copy(update=change(bundle.info)).sealed()
    write_text(bundle.path / "bundle.json", info.to_json())
    return Bundle.load(bundle.path)


def test_both_configs_say_what_the_graphs_are(tmp_path: Path) -> None:
    repository = write(make_bundle(tmp_path), tmp_path / "repo")
    step, clip = config(repository, "framegate"), config(repository, "framegate_clip")
    for model, found in ((step, "framegate"), (clip, "framegate_clip")):
        graph = ort.InferenceSession(repository / found / "1/model.onnx", providers=["CPUExecutionProvider"])
        states, initial = {}, {}
        for one in model.sequence_batching.state:
            states |= {
                one.input_name: (one.data_type, list(one.dims)),
                one.output_name: (one.data_type, list(one.dims)),
            }
            initial |= {one.input_name: (one.initial_state[0].data_type, list(one.initial_state[0].dims))}
        inputs, outputs = tensors(graph.get_inputs()), tensors(graph.get_outputs())
        assert declared(model.input) | {k: v for k, v in states.items() if k in inputs} == inputs
        assert declared(model.output) | {k: v for k, v in states.items() if k in outputs} == outputs
        assert all(inputs[name] == value for name, value in initial.items())
        assert (model.name, model.backend, model.max_batch_size) == (found, "onnxruntime", 16)


def test_the_step_model_batches_sequences_from_a_state_of_zeros(tmp_path: Path) -> None:
    model = config(write(make_bundle(tmp_path), tmp_path / "repo"), "framegate")
    (state,) = model.sequence_batching.state
    assert (state.input_name, state.output_name, list(state.dims)) == ("state", "next_state", [4])
    assert state.initial_state[0].zero_data and model.sequence_batching.oldest.max_candidate_sequences == 64
    assert not model.HasField("dynamic_batching")


def test_the_clip_model_has_no_state_and_batches_as_requests_come(tmp_path: Path) -> None:
    model = config(write(make_bundle(tmp_path), tmp_path / "repo"), "framegate_clip")
    assert model.HasField("dynamic_batching") and not model.HasField("sequence_batching")
    assert declared(model.input) == {"frames": (pb.TYPE_UINT8, [-1, 16, 16, 3])}


def test_labels_stand_beside_the_config_that_names_them(tmp_path: Path) -> None:
    repository = write(make_bundle(tmp_path), tmp_path / "repo")
    for name in ("framegate", "framegate_clip"):
        (logits,) = config(repository, name).output
        assert (repository / name / logits.label_filename).read_text().splitlines() == list(LABELS)


@pytest.mark.parametrize(("kind", "expected"), [("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")])
def test_kind_and_threads_stand_in_the_config(tmp_path: Path, kind: str, expected: str) -> None:
    model = config(write(make_bundle(tmp_path), tmp_path / "repo", kind=kind, threads=3), "framegate")
    assert [pb.ModelInstanceGroup.Kind.Name(group.kind) for group in model.instance_group] == [expected]
    assert model.parameters["intra_op_thread_count"].string_value == "3"


SABOTAGE = {
    "state size": (lambda info: {"state_size": 5}, r"step\.onnx: input 'state' is float32 \[-1, 4\], expected float32 \[-1, 5\]"),
    "a label more": (lambda info: {"labels": (*info.labels, "x")}, r"clip\.onnx: output 'logits' is float32 \[-1, 3\], expected float32 \[-1, 4\]"),
    "height": (lambda info: {"clip": info.clip.model_copy(update={"height": 32})}, r"'frame' is uint8 \[-1, 16, 16, 3\], expected uint8 \[-1, 32, 16, 3\]"),
    "bundle.json alone": (lambda info: {"step": info.step.model_copy(update={"inputs": info.step.inputs[:1]})}, r"bundle\.json of step\.onnx: input 'state' is missing"),
    "dtype in bundle.json": (lambda info: {"clip_graph": info.clip_graph.model_copy(update={"inputs": tuple(one.model_copy(update={"dtype": "float32"}) for one in info.clip_graph.inputs)})}, r"bundle\.json of clip\.onnx: input 'frames' is float32 .*expected uint8"),
    "label of two lines": (lambda info: {"labels": ("blue\nsky", *info.labels[1:])}, r"label 'blue\\nsky' is not one line"),
    "empty label": (lambda info: {"labels": ("", *info.labels[1:])}, r"label '' is not one line"),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_bundle_whose_words_differ_from_its_graph_is_refused(tmp_path: Path, name: str) -> None:
    change, message = SABOTAGE[name]
    bundle = told(make_bundle(tmp_path), change)
    with pytest.raises(BundleError, match=message):
        write(bundle, tmp_path / "repo")
    assert not (tmp_path / "repo").exists() and not list(tmp_path.glob(".repo*"))


def swapped(bundle: Bundle) -> Bundle:
    """step.onnx and clip.onnx in each other's place, with the right digests."""
    step, clip = bundle.path / "step.onnx", bundle.path / "clip.onnx"
    first, second = step.read_bytes(), clip.read_bytes()
    step.write_bytes(second)
    clip.write_bytes(first)
    return told_files(bundle)


def told_files(bundle: Bundle) -> Bundle:
    files = {name: sha256_file(bundle.path / name) for name in bundle.info.files}
    info = bundle.info.model_copy(update={"files": files}).sealed()
    write_text(bundle.path / "bundle.json", info.to_json())
    return Bundle.load(bundle.path)


def test_every_difference_of_a_graph_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no repository fits") as caught:
        write(swapped(make_bundle(tmp_path)), tmp_path / "repo")
    for words in (
        "step.onnx: input 'frame' is missing",
        "step.onnx: input 'frames' is one too many",
        "step.onnx: output 'next_state' is missing",
        "clip.onnx: input 'state' is one too many",
    ):
        assert words in str(caught.value)


def test_a_graph_without_a_batch_axis_is_refused(tmp_path: Path) -> None:
    import onnx

    bundle = make_bundle(tmp_path)
    model = onnx.load(bundle.path / "step.onnx")
    for one in model.graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, bundle.path / "step.onnx")
    with pytest.raises(BundleError, match=r"step\.onnx: input 'frame' is uint8 \[1, 16, 16, 3\], expected uint8 \[-1,"):
        write(told_files(bundle), tmp_path / "repo")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "clip.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"cannot open .*clip\.onnx"):
        write(told_files(bundle), tmp_path / "repo")


@pytest.mark.parametrize("name", ["", "a b", "../up", 'a"', "a/b", "-x", "framegate.json"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="model name"):
        write(make_bundle(tmp_path), tmp_path / "repo", name=name)


def test_written_again_it_is_the_same_and_a_new_name_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    first = contents(write(bundle, tmp_path / "repo"))
    assert contents(write(bundle, tmp_path / "repo")) == first
    write(bundle, tmp_path / "repo", name="other")
    assert {one.name for one in (tmp_path / "repo").iterdir()} == {"other", "other_clip", "framegate.json"}


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    assert (write(make_bundle(tmp_path), tmp_path / "repo") / "framegate/config.pbtxt").is_file()


def strange(repository: Path) -> str:
    (repository / "mine").mkdir()
    (repository / "mine/model.py").write_text("precious")
    return r"mine/model\.py: is not of this command"


def edited(repository: Path) -> str:
    (repository / "framegate/config.pbtxt").write_text("by hand")
    return r"framegate/config\.pbtxt: was changed"


def unmarked(repository: Path) -> str:
    (repository / "framegate.json").unlink()
    return "holds other things"


@pytest.mark.parametrize("harm", [strange, edited, unmarked])
def test_what_this_did_not_write_is_never_replaced(tmp_path: Path, harm: Callable[[Path], str]) -> None:
    bundle = make_bundle(tmp_path)
    repository = write(bundle, tmp_path / "repo")
    message = harm(repository)
    before = contents(repository)
    with pytest.raises(DataError, match=message):
        write(bundle, repository)
    assert contents(repository) == before


def test_a_file_in_the_place_of_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "repo").write_text("precious")
    with pytest.raises(DataError, match="holds other things"):
        write(make_bundle(tmp_path), tmp_path / "repo")
    assert (tmp_path / "repo").read_text() == "precious"


# --- the command --------------------------------------------------------------------------------


def test_the_command_writes_what_ships_and_names_it(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ship_of(exports, A)
    main(["triton-repo", "exports/shipped", "-o", "repo"])
    said = capsys.readouterr()
    assert f"models framegate (frames, sequences) and framegate_clip, from {A}" in said.out and said.err == ""
    assert sha256_file(Path("repo/framegate/1/model.onnx")) == sha256_file(exports / "shipped/step.onnx")


def test_a_judgement_on_another_runtime_is_noted(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ship_of(exports, A)
    main(["triton-repo", "exports/shipped", "-o", "repo", "--kind", "gpu", "--name", "cameras"])
    assert "judged on ort-cpu: Triton's onnxruntime backend runs the same graph as ort-cuda" in capsys.readouterr().err
    assert config(Path("repo"), "cameras").instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU


@pytest.mark.parametrize(
    ("runtime", "kind"), [("ort-cpu", "cpu"), ("openvino", "cpu"), ("ort-cuda", "gpu"), ("tensorrt", "gpu")]
)
def test_the_kind_follows_the_runtime_that_was_judged(exports: Path, runtime: str, kind: str) -> None:
    promotion = ship_of(exports, A).model_copy(update={"runtime": runtime})
    assert kind_of(promotion.runtime) == kind
    noted = notes(promotion, kind)
    assert [f"judged on {runtime}" in note for note in noted] == [True] * (not runtime.startswith("ort"))


@pytest.mark.parametrize("file", ["step.onnx", "promotion.json", "verdict.json", "samples.npz"])
def test_a_promotion_that_was_changed_is_refused(exports: Path, file: str) -> None:
    ship_of(exports, B)
    with (exports / "shipped" / file).open("ab") as opened:
        opened.write(b"x")
    with pytest.raises(SystemExit, match="error: .*" + file.split(".")[0]):
        main(["triton-repo", "exports/shipped", "-o", "repo"])
    assert not Path("repo").exists()


def test_a_bundle_that_never_shipped_is_refused(exports: Path) -> None:
    make_bundle(exports)
    with pytest.raises(SystemExit, match=r"promotion\.json: missing; expected a folder that was shipped"):
        main(["triton-repo", "exports/tiny-dense-fp32", "-o", "repo"])
