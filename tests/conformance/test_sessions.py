"""What every Session must do, whatever runs inside."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate.contract import Skipped
from framegate.runtime.session import FakeSession, Session, available_runtimes, open_session, run_clips, run_steps
from tests.bundles import LABELS, SPEC, WEIGHTS, color_clips, make_bundle

HERE = [name for name, found in available_runtimes().items() if not isinstance(found, Skipped)]
TOLERANCE = {"openvino-bf16": 0.3}


@pytest.fixture(scope="module", params=["fake", *HERE])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    if request.param == "fake":
        return FakeSession(LABELS, SPEC, weights=WEIGHTS)
    return open_session(make_bundle(tmp_path_factory.mktemp("bundles")).path, request.param)


@pytest.fixture
def close_to(session: Session) -> Callable[[np.ndarray, np.ndarray], bool]:
    tolerance = TOLERANCE.get(session.info.runtime, 1e-4)
    return lambda a, b: a.shape == b.shape and bool(np.abs(a - b).max() <= tolerance)


def test_session_says_what_it_is(session: Session) -> None:
    assert session.labels == LABELS and session.clip == SPEC and session.state_size == 4
    assert session.info.threads == 1 and session.info.provider and session.info.version


def test_iterated_step_gives_the_clip_logits(session: Session, close_to: Callable) -> None:
    clips = color_clips([0, 1, 2, 1, 0])
    expected = clips.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32) / 255 @ WEIGHTS
    assert close_to(run_clips(session, clips, batch=2), expected)


def test_step_logits_end_in_the_clip_logits(session: Session) -> None:
    clips = color_clips([2, 1])
    assert np.array_equal(run_steps(session, clips)[:, -1], run_clips(session, clips))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(5)), seed=st.integers(0, 99))
def test_permuting_streams_permutes_outputs(session: Session, close_to: Callable, order: list[int], seed: int) -> None:
    frames = color_clips([0, 1, 2, 1, 0], seed)[:, 0]
    state = np.random.default_rng(seed).random((5, 4), np.float32) + 1
    logits, after = session.step(frames, state)
    logits2, after2 = session.step(frames[order], state[order])
    assert close_to(logits[order], logits2) and close_to(after[order], after2)


def test_streams_in_one_batch_equal_streams_alone(session: Session, close_to: Callable) -> None:
    clips = color_clips([0, 1, 2])
    together = run_steps(session, clips, batch=3)
    assert close_to(together, run_steps(session, clips, batch=1))


def test_results_stay_the_callers_when_the_session_goes_on(session: Session) -> None:
    frames = color_clips([0, 1])[:, 0]
    logits, after = session.step(frames[:1], session.init_state(1))
    kept = logits.copy(), after.copy()
    session.step(frames[1:], after)
    assert np.array_equal(logits, kept[0]) and np.array_equal(after, kept[1])


def test_step_never_changes_its_arguments(session: Session) -> None:
    frames, state = color_clips([0])[:, 0], session.init_state(1) + 1
    before = frames.copy(), state.copy()
    session.step(frames, state)
    assert np.array_equal(frames, before[0]) and np.array_equal(state, before[1])


@pytest.mark.parametrize(
    ("frames", "state", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 4), np.float32), "frames: got float32"),
        (np.zeros((1, 8, 16, 3), np.uint8), np.zeros((1, 4), np.float32), r"expected uint8 \[N,16,16,3\]"),
        (np.zeros((16, 16, 3), np.uint8), np.zeros((1, 4), np.float32), "frames: got"),
        (np.zeros((0, 16, 16, 3), np.uint8), np.zeros((0, 4), np.float32), "N >= 1"),
        (np.zeros((2, 16, 16, 3), np.uint8), np.zeros((1, 4), np.float32), r"expected float32 \[2,4\]"),
        (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 4), np.float64), "state: got float64"),
    ],
)
def test_wrong_inputs_are_named(session: Session, frames: np.ndarray, state: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session.step(frames, state)


@pytest.mark.parametrize("name", ["fake", *HERE])
def test_closing_twice_is_harmless_and_a_closed_session_says_so(name: str, tmp_path: Path) -> None:
    session = FakeSession(LABELS, SPEC) if name == "fake" else open_session(make_bundle(tmp_path).path, name)
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.step(color_clips([0])[:, 0], session.init_state(1))
