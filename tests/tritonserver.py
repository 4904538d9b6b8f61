"""The real Triton Inference Server, as nvidia-pytriton's wheel has it: started as a process of its own.

That wheel needs numpy < 2, hence an environment of its own: FRAMEGATE_TRITON_PYTHON, or .venv-triton here.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from framegate.contract import Bundle
from framegate.triton import write_repository

ROOT = Path(__file__).parent.parent
MODEL = Path(__file__).parent / "contract/triton_model.py"
READY_S = 120
WHERE = """
import importlib.util, platform, sys
print(importlib.util.find_spec("pytriton").submodule_search_locations[0], ".".join(platform.python_version_tuple()[:2]))
"""


@dataclass(frozen=True)
class Installed:
    """What the wheel brought, for one Python."""

    package: Path
    python: Path
    version: str

    @property
    def binary(self) -> Path:
        return self.package / "tritonserver/bin/tritonserver"

    @property
    def stub(self) -> Path:
        return self.package / f"tritonserver/python_backend_stubs/{self.version}/triton_python_backend_stub"


def installed() -> Installed:
    """The environment of tritonserver; the test is skipped where there is none, and fails where the named one is not."""
    named = os.environ.get("FRAMEGATE_TRITON_PYTHON")
    python = Path(named or ROOT / ".venv-triton/bin/python")
    if named and not python.is_file():
        pytest.fail(f"FRAMEGATE_TRITON_PYTHON names {python}: no such file")
    if not python.is_file():
        pytest.skip("no environment with tritonserver: `make triton-env` makes one")
    package, version = subprocess.run([python, "-c", WHERE], capture_output=True, text=True, check=True).stdout.split()
    return Installed(Path(package), python, version)


def make_repository(bundle: Bundle, folder: Path) -> Path:
    """What `framegate triton-repo` writes, with only the backend replaced."""
    write_repository(bundle, folder, "framegate", "cpu", 1)
    for config in folder.glob("*/config.pbtxt"):
        before = config.read_text()
        assert before.count('backend: "onnxruntime"') == 1
        config.write_text(before.replace('backend: "onnxruntime"', 'backend: "python"'))
        shutil.copyfile(MODEL, config.parent / "1/model.py")
    return folder


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(bundle: Bundle, folder: Path) -> Iterator[tuple[int, int]]:
    """Ports of HTTP and gRPC of a tritonserver over the bundle, ready."""
    found, repository, (http, grpc) = installed(), make_repository(bundle, folder / "repository"), free_ports(2)
    backend = folder / "backends/python"  # a folder of our own: the stub must lie beside the backend's library
    shutil.copytree(found.package / "tritonserver/backends/python", backend)
    shutil.copy(found.stub, backend)
    command = [found.binary, f"--model-repository={repository}", f"--backend-directory={backend.parent}"]
    command += [f"--http-port={http}", f"--grpc-port={grpc}", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
    command += ["--allow-metrics=false", "--exit-timeout-secs=1"]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(found.package.parent / "nvidia_pytriton.libs"),
        "PATH": f"{found.python.parent}:{os.environ['PATH']}",
    }
    log = folder / "tritonserver.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_until_ready(server, http, log)
            yield http, grpc
        finally:
            stop(server)


def stop(server: subprocess.Popen) -> int:
    """SIGTERM, and the exit code; one that does not end is killed (-9)."""
    server.terminate()
    try:
        return server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def wait_until_ready(server: subprocess.Popen, port: int, log: Path) -> None:
    """Fails with the end of the log when the server ends first, or takes too long."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}") as client:
            try:
                if client.is_server_ready():
                    return
            except (OSError, InferenceServerException):
                pass
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
    pytest.fail(f"tritonserver is not ready (exit code {server.poll()}):\n{tail}")
