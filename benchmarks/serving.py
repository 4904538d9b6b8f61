"""`framegate serve` against LitServe and against the bare runtime: CPU per request, requests per second, overload.

    python -m benchmarks.serving [--bundle FOLDER] [--rounds 5] [--seconds 3] [--no-peer] [--no-overload]

One model, one client (`benchmarks.http_load`), rounds of all servers in turn; whoever is not measured is stopped. Every
server is pinned, with all its processes, to one core, and that core is all it gets: LitServe's three processes share it
too. The client has another core, the bare runtime's loop the servers'. A request is one frame, alone (no state), as raw
bytes; the answer is its logits. CPU = user + system time of the server's processes, per answered request.

LitServe gets a virtual environment of its own. Batches of 16 at three timeouts and no batching at all, each with both
queues, are tried for each number of clients; whichever is best at CPU, at requests/s or at p99 takes part in the
rounds, and every figure of ours is judged against the setting that is best at that very figure.

Overload: arrivals on a clock at three times the peak, by clients that never back off; what finds all connections busy
is lost, and said so with the rate that was really sent. Goodput counts answers within 500 ms, the client's limit, of a
server told `--deadline-ms 250`: its deadline is checked before a step, what follows and the queues of the sockets take
the rest. A deadline above the clients' limit would be work for answers that nobody waits for any more.

Without --bundle the model is a CNN + GRU of 10 MB, made so that batches pay (one dense layer holds most of its bytes),
and the targets are judged on it, exit code 1 if one is missed. `exports/shipped`, if it is there, follows: fewer
rounds, LitServe's settings as found, no targets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.http_load import Orders
from benchmarks.processes import ServerProcess, framegate_serve, pinned, two_cores
from benchmarks.serving_facts import (
    CLIENTS,
    PEER_LANE,
    Report,
    best_settings,
    facts,
    no_targets,
    overload_facts,
    print_table,
    verdicts,
)
from benchmarks.step_model import random_step_model, step_cpu_ms
from framegate.contract import Bundle
from framegate.runtime.session import Session, open_session

LITSERVE = "0.2.19"
SHIPPED = Path("exports/shipped")
TUNE_S = 1.5
THREADS = 1
OVERLOAD, LIMIT_S, DEADLINE_MS = 3.0, 0.5, 250
CONNECTIONS, MOST_CONNECTIONS = 300, 1000


@dataclass(frozen=True, slots=True)
class Setting:
    """How LitServe is started; a batch of 1: its loop that waits for one request and serves it."""

    batch: int
    timeout_s: float
    fast_queue: bool

    def __str__(self) -> str:
        batches = f"b{self.batch} {1000 * self.timeout_s:g}ms" if self.batch > 1 else "alone"
        return f"{PEER_LANE} {batches}{' fast' if self.fast_queue else ''}"


SETTINGS = [
    Setting(batch, timeout_s, fast)
    for batch, timeout_s in ((1, 0.0), (16, 0.0), (16, 0.001), (16, 0.005))
    for fast in (False, True)
]


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the bytes of one request to it."""

    server: ServerProcess
    port: int
    request: Path


@dataclass(frozen=True, slots=True)
class Cores:
    """Where clients and servers run; None: anywhere."""

    client: int | None
    server: int | None


def main() -> int:
    """Print tables, last one JSON object; 1 when a target is missed."""
    given = arguments()
    cores = Cores(*((None, None) if given.no_pin else two_cores()))
    peer = None if given.no_peer else Peer.of(given.peer_venv)
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        bundle = Bundle.load(given.bundle) if given.bundle else random_step_model(scratch / "bundle")
        with ExitStack() as stack:
            bench = Bench(bundle, cores, scratch, stack)
            taken = bench.tuned(peer) if peer else {}
            result = {"litserve": peer and peer.version} | bench.compared(peer, taken, given.rounds, given.seconds)
            if given.overload:
                result |= bench.overload(given.rounds, given.seconds)
        if not given.bundle and SHIPPED.is_dir():
            (scratch / "shipped").mkdir()
            with ExitStack() as stack:
                bench = Bench(Bundle.load(SHIPPED), cores, scratch / "shipped", stack)
                shipped = bench.compared(peer, taken, max(1, given.rounds // 2), given.seconds)
            result["shipped"] = shipped
    if "shipped" in result:
        print(no_targets(result["shipped"]))
    judged = verdicts(result)
    print("\n".join(f"{'met   ' if met else 'MISSED'} {text}" for met, text in judged))
    met = all(met for met, _ in judged)
    print(json.dumps({**result, "met": met}))
    return 0 if met else 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: random weights, then exports/shipped")
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-litserve"), help="made when it is not there")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round, without its warm-up")
    parser.add_argument("--no-peer", action="store_true", help="without LitServe")
    parser.add_argument("--overload", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--no-pin", action="store_true", help="let the scheduler choose cores")
    return parser.parse_args()


# --- the model --------------------------------------------------------------------------------


def model_facts(bundle: Bundle, session: Session, core: int | None) -> Report:
    """Size, and what batching gives without any server."""
    with on_core(core):
        step_ms = {rows: step_cpu_ms(session, rows) for rows in (1, 8, 16)}
    clip = session.clip
    found = {
        "bundle": bundle.info.name,
        "frame": f"{clip.width}x{clip.height}",
        "megabytes": round((bundle.path / "step.onnx").stat().st_size / 1e6, 2),
        "step_ms": {str(rows): round(ms, 3) for rows, ms in step_ms.items()},
        "batch_8_gain": round(8 * step_ms[1] / step_ms[8], 2),
    }
    print(
        f"model: {found['bundle']}, {found['frame']}, {found['megabytes']} MB; a step of 1 / 8 / 16 frames takes "
        f"{' / '.join(f'{ms:.2f}' for ms in step_ms.values())} ms; a batch of 8 gives {found['batch_8_gain']} times "
        "the frames/s"
    )
    return found


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """This process on one core, for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def oip_request(frame: np.ndarray[Any, Any], name: str) -> bytes:
    """An infer request of the Open Inference Protocol with one frame u8 [1,H,W,3] as a binary tensor."""
    inputs = [
        {
            "name": "frame",
            "datatype": "UINT8",
            "shape": frame.shape,
            "parameters": {"binary_data_size": frame.nbytes},
        }
    ]
    outputs = [{"name": "logits", "parameters": {"binary_data": False}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}\r\n"
    return post(f"/v2/models/{name}/infer", head + frame.tobytes(), length)


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


# --- servers ----------------------------------------------------------------------------------


class Bench:
    """All servers under one roof; they end with `stack`."""

    def __init__(self, bundle: Bundle, cores: Cores, scratch: Path, stack: ExitStack) -> None:
        self._bundle, self._cores, self._scratch, self._stack = bundle, cores, scratch, stack
        self._session = session = open_session(bundle, "ort-cpu", THREADS)
        self._model = model_facts(bundle, session, cores.server)
        clip = session.clip
        frame = np.random.default_rng(1).integers(0, 256, (1, clip.height, clip.width, 3), np.uint8)
        self._logits = session.step(frame, session.init_state(1))[0][0]
        self._oip, self._raw = scratch / "oip.request", scratch / "raw.request"
        self._oip.write_bytes(oip_request(frame, "framegate"))
        self._raw.write_bytes(post("/predict", frame.tobytes()))

    def serve(self, name: str, *options: str) -> Target:
        """Ours, with more options; paused."""
        words = ["--runtime", "ort-cpu", "--threads", str(THREADS), "--accept-host", *options]
        server, ports = framegate_serve(self._bundle.path, self._scratch, self._cores.server, words, name)
        return self._checked(self._stack.enter_context(server), ports["http"], self._oip)

    def tuned(self, peer: Peer) -> dict[int, list[Setting]]:
        """For each number of clients, LitServe's settings that are best at something."""
        tried: dict[Setting, dict[int, Report]] = {}
        for setting in SETTINGS:
            target = self._start_peer(peer, setting)
            tried[setting] = {n: self.round(target, n, TUNE_S) for n in CLIENTS}
            target.server.stop()
        taken = {n: best_settings({setting: found[n] for setting, found in tried.items()}) for n in CLIENTS}
        for setting, found in tried.items():
            figures = [
                f"{n} clients {one['requests_per_s']:.0f}/s, {one['cpu_ms']:.2f} ms CPU, p99 {one['p99_ms']:.1f} ms"
                + (" (taken)" if setting in taken[n] else "")
                for n, one in found.items()
            ]
            print(f"{setting}: {'; '.join(figures)}")
        return taken

    def _start_peer(self, peer: Peer, setting: Setting) -> Target:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        script = Path(__file__).with_name("litserve_peer.py")
        words = ["--port", port, "--threads", THREADS, "--batch", setting.batch, "--timeout-s", setting.timeout_s]
        command = [peer.python, script, self._bundle.path / "step.onnx", *words]
        command += ["--fast-queue"] if setting.fast_queue else []
        log = self._scratch / "peer.log"
        server = ServerProcess(str(setting), [str(word) for word in command], self._cores.server, log)
        self._stack.enter_context(server)
        server.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        return self._checked(server, port, self._raw)

    def _checked(self, server: ServerProcess, port: int, request: Path) -> Target:
        """Its answer is the model's; then it pauses."""
        logits = first_answer(port, request.read_bytes())
        worst = float(np.abs(logits - self._logits).max())
        if logits.shape != self._logits.shape or not worst < 1e-4:
            raise SystemExit(f"{server.name}: its logits differ from the session's by {worst:.2g}")
        server.pause()
        return Target(server, port, request)

    # --- measuring ----------------------------------------------------------------------------

    def compared(
        self, peer: Peer | None, taken: dict[int, list[Setting]], rounds: int, seconds: float
    ) -> dict[str, Any]:
        """Rounds of ours, ours without batches and LitServe's settings taken; the table is printed."""
        ours, alone = self.serve("ours"), self.serve("ours, --max-batch 1", "--max-batch", "1")
        lanes = {("ours", n): ours for n in CLIENTS} | {("ours unbatched", n): alone for n in CLIENTS}
        if peer:
            started = {setting: self._start_peer(peer, setting) for setting in set().union(*taken.values())}
            lanes |= {(str(setting), n): started[setting] for n in CLIENTS for setting in taken[n]}
        reports, bare = self.rounds(lanes, rounds, seconds)
        print_table(reports, bare)
        return {"model": self._model, **facts(reports, bare)}

    def round(self, target: Target, clients: int, seconds: float, **more: Any) -> Report:
        """One run of the client against one server, the others paused."""
        session, request = target.server.session, str(target.request)
        orders = Orders(target.port, request, seconds, session, connections=clients, limit_s=LIMIT_S, **more)
        target.server.resume()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.http_load"],
                input=json.dumps(asdict(orders)),
                capture_output=True,
                text=True,
                check=True,
                preexec_fn=pinned(self._cores.client),
            )
        finally:
            target.server.pause()
        found: Report = json.loads(done.stdout)
        return found

    def rounds(
        self, lanes: dict[tuple[str, int], Target], rounds: int, seconds: float
    ) -> tuple[dict[tuple[str, int], list[Report]], list[float]]:
        """Every lane once a round, forwards and backwards in turn; and the bare runtime's CPU ms per step."""
        reports: dict[tuple[str, int], list[Report]] = {lane: [] for lane in lanes}
        bare: list[float] = []
        for number in range(rounds):
            order = list(lanes) if number % 2 == 0 else list(lanes)[::-1]
            for lane in order:
                report = self.round(lanes[lane], lane[1], seconds)
                if set(report["statuses"]) != {"200"}:
                    raise SystemExit(
                        f"{lane[0]}, {lane[1]} clients: not every request was answered: {report['statuses']}"
                    )
                reports[lane].append(report)
            with on_core(self._cores.server):
                bare.append(step_cpu_ms(self._session, 1, min(seconds, 1.0)))
        return reports, bare

    def overload(self, rounds: int, seconds: float) -> Report:
        """Goodput at three times the peak; peak and overload in turn."""
        target = self.serve("overloaded", "--deadline-ms", str(DEADLINE_MS))
        found: list[Report] = []
        for _ in range(rounds):
            peak = self.round(target, CLIENTS[-1], seconds)["requests_per_s"]
            rate, most = OVERLOAD * peak, MOST_CONNECTIONS
            one = self.round(target, CONNECTIONS, 2 * seconds, rate=rate, most_connections=most, warm_s=2.0)
            found.append({"peak_per_s": peak, "arrivals_per_s": rate, **one})
            print(
                f"overload: {rate:.0f} arrivals/s, {one['sent_per_s']:.0f}/s sent, {one['lost']} lost; "
                f"peak {peak:.0f}/s, good {one['good_per_s']:.0f}/s ({one['good_per_s'] / peak:.0%}); "
                f"{one['statuses']}; answered with p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms; "
                f"client {one['client_cores']:.2f} cores, {one['lag_ms']} ms late at most"
            )
        return overload_facts(found)


@dataclass(frozen=True, slots=True)
class Peer:
    """LitServe's Python, and what version it says it has."""

    python: Path
    version: str

    @classmethod
    def of(cls, folder: Path) -> Peer:
        """Its environment, made when it is not there. SystemExit when it holds other versions than it should."""
        import onnxruntime

        packages = {"litserve": LITSERVE, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
        python = (folder / "bin" / "python").absolute()
        if not python.is_file():
            make_environment(folder, [f"{name}=={version}" for name, version in packages.items()])
        ask = f"import importlib.metadata as m, json; print(json.dumps([m.version(n) for n in {list(packages)}]))"
        asked = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if asked.returncode:
            raise SystemExit(f"{folder}: not LitServe's environment:\n{asked.stderr[-500:]}")
        has = dict(zip(packages, json.loads(asked.stdout), strict=True))
        if has != packages:
            raise SystemExit(f"{folder} has {has}, wanted {packages}: remove it, or name another with --peer-venv")
        return cls(python, has["litserve"])


def make_environment(folder: Path, packages: list[str]) -> None:
    """A virtual environment with these packages."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit("uv is needed to make the peer's environment: pip install uv, or --no-peer")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)


def answers(url: str) -> bool:
    """Whether a GET there gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as found:
            return bool(found.status == 200)
    except OSError:
        return False


def first_answer(port: int, request: bytes) -> np.ndarray[Any, Any]:
    """The logits f32 [K] of one request, whatever form they come in."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        got = b"".join(iter(lambda: connection.recv(65536), b""))
    body = json.loads(got.partition(b"\r\n\r\n")[2])
    return np.array(body["logits"] if "logits" in body else body["outputs"][0]["data"], np.float32)


if __name__ == "__main__":
    sys.exit(main())
