"""Swaps and shutdowns under load: is anything lost that the server accepted, is any answer another version's?

    python -m benchmarks.swaps [--bundles exports/A exports/B] [--swaps 20] [--sigterms 5] [--clients 4] [--workers 1]

Two bundles take turns in the folder that a server follows, while clients send sequences and single frames over HTTP and
gRPC and live streams over WebSocket. Then servers under the same load are told to stop by SIGTERM. Every answer is
compared with the same frames offline, on the version that it names. `ratio` = failed / accepted; see `swap_clients`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.swap_clients import KINDS, Client, Count
from benchmarks.swap_oracle import Oracle
from framegate.contract import Bundle, ConfigError, atomic_folder

READY_S = 60.0
VERSION_S = 0.3  # a stream stays on a replaced version: so short that resets are seen
IDS = count(1)


@dataclass
class Served:
    """A server process, and where it listens."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    @property
    def version(self) -> str:
        """The one for new work."""
        with urlopen(f"http://127.0.0.1:{self.ports['http']}/v2/health/ready", timeout=10) as answer:
            found: str = json.load(answer)["version"]
        return found


@contextmanager
def serving(folder: Path, scratch: Path, *options: str) -> Iterator[Served]:
    """`framegate serve` over a folder; ended, by its own id, if it still runs."""
    number = next(IDS)
    ports, log = scratch / f"ports-{number}.json", scratch / f"serve-{number}.log"
    command = [sys.executable, "-m", "framegate.cli", "serve", "--bundle", str(folder), "--ports-file", str(ports)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0", *options], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + READY_S
        while not ports.is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ConfigError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield Served(process, json.loads(ports.read_text()))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@asynccontextmanager
async def load(served: Served, oracle: Oracle, clients: int, counts: dict[str, Count]) -> AsyncIterator[None]:
    """That many clients of each protocol at work; what became of their requests is added to the counts."""
    over = asyncio.Event()
    running: list[tuple[str, Client]] = []
    for kind, make in KINDS.items():
        port = served.ports["grpc" if kind == "gRPC" else "http"]
        running += [(kind, make(oracle, "127.0.0.1", port, next(IDS), over)) for _ in range(clients)]
    tasks = [asyncio.create_task(client.run()) for _, client in running]
    try:
        yield
    finally:
        over.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for (kind, client), outcome in zip(running, outcomes, strict=True):
            counts.setdefault(kind, Count())
            counts[kind] += client.count
            if isinstance(outcome, BaseException):
                counts[kind].failed[f"client ended: {outcome!r}"[:120]] += 1


@dataclass
class Result:
    """All phases together."""

    counts: dict[str, Count] = field(default_factory=dict)
    swaps: int = 0
    exit_codes: list[int] = field(default_factory=list)

    @property
    def total(self) -> Count:
        """Over all protocols."""
        total = Count()
        for one in self.counts.values():
            total += one
        return total


async def swap_under_load(
    served: Served, oracle: Oracle, put: Callable[[str], None], swaps: int, clients: int, result: Result
) -> None:
    """Put one version after the other into the followed folder, each once the one before serves, under load."""
    versions = sorted(oracle.versions, key=lambda one: one == served.version)  # the other one first
    async with load(served, oracle, clients, result.counts):
        for version in islice(cycle(versions), swaps):
            await asyncio.to_thread(put, version)
            await _until(lambda wanted=version: served.version == wanted, f"version {version} serves")
            result.swaps += 1
            print(f"swap {result.swaps} of {swaps}: version {version} serves", flush=True)
        await asyncio.sleep(VERSION_S + 2)  # the last resets


async def stop_under_load(served: Served, oracle: Oracle, seconds: float, clients: int, result: Result) -> None:
    """SIGTERM after so many seconds of load, which goes on until the process has ended."""
    async with load(served, oracle, clients, result.counts):
        await asyncio.sleep(seconds)
        os.kill(served.process.pid, signal.SIGTERM)
        result.exit_codes.append(await asyncio.to_thread(served.process.wait, READY_S))
        print(f"SIGTERM {len(result.exit_codes)}: exit code {result.exit_codes[-1]}", flush=True)


async def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if await asyncio.to_thread(holds):
                return
        except (URLError, OSError):
            pass
        await asyncio.sleep(0.05)
    raise ConfigError(f"not within {READY_S:g} s: {what}")


def run(bundles: Mapping[str, Path], swaps: int, sigterms: int, clients: int, workers: int) -> Result:
    """Both phases over copies of the bundles; their keys are the versions."""
    result, oracle = Result(), Oracle(bundles)
    with TemporaryDirectory(prefix="framegate-swaps-") as name:
        scratch = Path(name)
        folder = scratch / "served"

        def put(version: str) -> None:
            with atomic_folder(folder) as empty:
                unnumbered = shutil.ignore_patterns("promotion.json")  # versions are the bundles' digests
                shutil.copytree(bundles[version], empty, ignore=unnumbered, dirs_exist_ok=True)

        put(next(iter(bundles)))
        options = ["--accept-host", "--version-s", str(VERSION_S), "--workers", str(workers)]
        if swaps:
            with serving(folder, scratch, *options) as served:
                asyncio.run(swap_under_load(served, oracle, put, swaps, clients, result))
        for _ in range(sigterms):
            with serving(folder, scratch, *options) as served:
                asyncio.run(stop_under_load(served, oracle, 2.0, clients, result))
    return result


def facts(result: Result) -> dict[str, Any]:
    """The figures, as JSON."""
    total = result.total
    return {
        "ratio": total.failed.total() / max(total.accepted, 1),
        "accepted": total.accepted,
        "failed": dict(total.failed),
        "refused": dict(total.refused),
        "swaps": result.swaps,
        "exit_codes": result.exit_codes,
    }


def main() -> None:
    """Print a table, last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, nargs=2, help="default: the first two of exports/ with one frame size")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--sigterms", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4, help="of each protocol; default: 4")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    bundles = {Bundle.load(path).info.digest[:12]: path for path in asked.bundles or two_of(Path("exports"))}
    print("versions: " + ", ".join(f"{version} = {path}" for version, path in bundles.items()))
    result = run(bundles, asked.swaps, asked.sigterms, asked.clients, asked.workers)
    print(f"{'':10}{'accepted':>10}{'failed':>8}{'refused':>9}{'resets':>8}  answers by version")
    for kind, one in [*result.counts.items(), ("all", result.total)]:
        by_version = ", ".join(f"{version}: {n}" for version, n in sorted(one.versions.items()))
        print(f"{kind:10}{one.accepted:10}{one.failed.total():8}{one.refused.total():9}{one.resets:8}  {by_version}")
    print(f"{result.swaps} swaps, exit codes after SIGTERM: {result.exit_codes}")
    print(json.dumps(facts(result)))


def two_of(exports: Path) -> list[Path]:
    """Two bundles of one folder that take the same frames and know the same labels."""
    found = [Bundle.load(file.parent) for file in sorted(exports.glob("*/bundle.json"))]
    for at, one in enumerate(found):
        for other in found[at + 1 :]:
            same = (one.info.clip, one.info.labels) == (other.info.clip, other.info.labels)
            if same and one.info.digest != other.info.digest:
                return [one.path, other.path]
    raise ConfigError(f"{exports}: no two bundles of one task; name two with --bundles")


if __name__ == "__main__":
    main()
