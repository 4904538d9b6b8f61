"""Our session's step against a bare loop over the runtime, on the same graph, with the same options and threads.

    python -m benchmarks.session_overhead [BUNDLE] [--runtime ort-cpu] [--processes 10]

Bare is what the runtime's own documentation shows: `InferenceSession.run(names, feeds)`, `InferRequest.infer(feeds)`.
Both walk the bundle's golden clips and feed their state back, in AB/BA blocks, in fresh processes that open both
anew. Without a bundle: the one that shipped, or where none did the default net with random weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.step_vs_window import trained_or_random
from framegate.bench import stats
from framegate.bench.latency import time_pair
from framegate.contract import Bundle
from framegate.runtime import ort
from framegate.runtime.session import Floats, Frames, open_session

BLOCKS, CALLS = 16, 50
Step = Callable[[Frames, Floats], tuple[Floats, Floats]]


def main() -> None:
    """Print what was measured, last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("exports/shipped"))
    parser.add_argument("--runtime", default="ort-cpu", choices=["ort-cpu", "openvino"])
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # this is one of the processes; its samples go here
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        np.savez(arguments.one, **one_process(arguments.bundle, arguments.runtime, arguments.seed))
        return
    with TemporaryDirectory() as scratch:
        bundle = trained_or_random(arguments.bundle, Path(scratch))
        found = [fresh(bundle.path, arguments.runtime, seed, Path(scratch)) for seed in range(arguments.processes)]
    result = {"bundle": bundle.info.name, "runtime": arguments.runtime, **facts(found)}
    low, high = result["ratio_bounds"]
    print(f"{bundle.info.name} on {arguments.runtime}, p50 of one step in {len(found)} fresh processes, one thread")
    print(f"  session     {result['session_ms']:.4f} ms")
    print(f"  bare loop   {result['bare_ms']:.4f} ms")
    print(f"  difference  {result['difference_us']:.1f} microseconds")
    print(f"  ratio       {result['ratio']:.4f}, between {low:.4f} and {high:.4f}")
    print(json.dumps(result))


def fresh(bundle: Path, runtime: str, seed: int, scratch: Path) -> dict[str, NDArray[Any]]:
    """ns [block, call] of both, from a process of their own."""
    out = scratch / f"{seed}.npz"
    words = [str(bundle), "--runtime", runtime, "--seed", str(seed), "--one", str(out)]
    subprocess.run([sys.executable, "-m", "benchmarks.session_overhead", *words], check=True)
    with np.load(out) as arrays:
        return dict(arrays)


def one_process(path: Path, runtime: str, seed: int) -> dict[str, NDArray[Any]]:
    """Open both, the order drawn, and time them."""
    bundle, lanes = Bundle.load(path), {}
    with np.load(path / "golden.npz") as golden:
        clips = golden["frames"]
    for side in np.random.default_rng(seed).permutation(["session", "bare"]):
        step = open_bare(bundle, runtime) if side == "bare" else open_session(bundle, runtime).step
        lanes[str(side)] = StepLane(step, clips, bundle.info.state_size)
    found = time_pair(lanes["session"], lanes["bare"], BLOCKS, CALLS, seed)
    return {"session": found.candidate_ns, "bare": found.parent_ns}


class StepLane:
    """One loop for both: steps through clips u8 [V,T,H,W,3], the state fed back."""

    def __init__(self, step: Step, clips: Frames, state_size: int) -> None:
        self._step, self._start = step, np.zeros((1, state_size), np.float32)
        self._frames = [np.ascontiguousarray(clip[t : t + 1]) for clip in clips for t in range(len(clip))]
        self._per_clip, self._next, self._state = clips.shape[1], 0, self._start

    def block(self, calls: int) -> NDArray[np.int64]:
        """Nanoseconds of each of `calls` steps."""
        ns, step, clock = np.empty(calls, np.int64), self._step, time.perf_counter_ns
        for i in range(calls):
            if self._next % self._per_clip == 0:
                self._state = self._start
            frame, state = self._frames[self._next], self._state
            start = clock()
            _, self._state = step(frame, state)
            ns[i] = clock() - start
            self._next = (self._next + 1) % len(self._frames)
        return ns


def open_bare(bundle: Bundle, runtime: str) -> Step:
    """The runtime without us: no checks, no names bound in advance."""
    graph = bundle.path / "step.onnx"
    if runtime == "openvino":
        return _bare_openvino(graph, bundle)
    inner = ort.open_graph(graph, runtime, threads=1)
    return lambda frame, state: inner.run(["logits", "next_state"], {"frame": frame, "state": state})


def _bare_openvino(graph: Path, bundle: Bundle) -> Step:
    from framegate.runtime.openvino import compile_settings, the_core

    core, spec = the_core(), bundle.info.clip
    model = core.read_model(str(graph))
    model.reshape({"frame": [1, spec.height, spec.width, 3], "state": [1, bundle.info.state_size]})
    request = core.compile_model(model, "CPU", compile_settings("openvino", threads=1)).create_infer_request()

    def step(frame: Frames, state: Floats) -> tuple[Floats, Floats]:
        found = request.infer({"frame": frame, "state": state})
        return found["logits"], found["next_state"]

    return step


def facts(found: list[dict[str, NDArray[Any]]]) -> dict[str, Any]:
    """p50 of both, their difference and ratio; bounds one-sided at 95 %, over processes."""
    session, bare = (np.stack([one[side] for one in found]) for side in ("session", "bare"))  # [process, block, call]
    ratio = stats.ratio_p50(session, bare)
    apart = np.median(session, axis=2) - np.median(bare, axis=2)  # of blocks a few milliseconds from each other
    return {
        "ratio": round(float(ratio.value or 0), 4),
        "ratio_bounds": [None if bound is None else round(bound, 4) for bound in (ratio.low, ratio.high)],
        "difference_us": round(float(np.median(apart)) / 1e3, 2),
        "session_ms": round(float(np.median(session)) / 1e6, 4),
        "bare_ms": round(float(np.median(bare)) / 1e6, 4),
        "processes": len(found),
    }


if __name__ == "__main__":
    main()
