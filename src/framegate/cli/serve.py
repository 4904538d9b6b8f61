"""`framegate serve`: the shipped model on live streams, over HTTP, gRPC and WebSocket."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from framegate.contract import ConfigError, explain
from framegate.runtime.session import RUNTIMES

if TYPE_CHECKING:
    from framegate.serve.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate serve`."""
    from framegate.serve.limits import Limits

    add = parser.add_argument
    add("--bundle", type=Path, default=Path("exports/shipped"), help="folder to follow; default: exports/shipped")
    add("--name", default="framegate", help="of the model, in every URL; default: framegate")
    add("--host", default="127.0.0.1", help="default: 127.0.0.1; any other needs --keys or --insecure")
    add("--port", type=int, default=8000, help="of HTTP and WebSocket; 0: any free one; default: 8000")
    add("--grpc-port", type=int, default=8001, help="0: any free one, -1: no gRPC; default: 8001")
    add("--workers", type=int, default=1, metavar="N", help="processes; streams are pinned to one by their id")
    add("--runtime", choices=list(RUNTIMES), help="default: the one that the model shipped with")
    add("--threads", type=int, choices=range(1, 257), metavar="N", help="of a step; default: as shipped")
    add("--accept-host", action="store_true", help="also without a verdict for this host class")
    add("--public-key", type=Path, help="serve only what the owner of this Ed25519 key signed")
    add("--keys", type=Path, metavar="FILE", help="API keys, a line each: name:sha256 (--new-key NAME makes one)")
    add("--new-key", metavar="NAME", help="print a new API key and its line for --keys, and end")
    add("--tls-cert", type=Path, help="PEM certificate chain")
    add("--tls-key", type=Path, help="its PEM private key")
    add("--insecure", action="store_true", help="listen beyond loopback without keys")
    add("--shadow", type=Path, metavar="FOLDER", help="a candidate that sees a share of the streams")
    add("--shadow-share", type=float, help="of the streams; default: 0.1")
    add("--low-confidence", type=float, default=0.5, help="a top probability below it counts as unsure; default: 0.5")
    add("--ports-file", type=Path, metavar="FILE", help="write the ports there as JSON when it is ready")
    group = parser.add_argument_group("limits")
    for name, field in Limits.model_fields.items():
        kind = int if field.annotation is int else float
        text = f"{field.description}; default: {field.default if kind is int else f'{field.default:g}'}"
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, default=field.default, metavar="N", help=text)


def need_packages() -> None:
    """ConfigError unless the serve extra is installed."""
    if missing := [name for name in ("fastapi", "uvicorn", "tritonclient") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"`framegate serve` needs {', '.join(missing)}: pip install 'framegate[serve]'")


def check_words(parsed: argparse.Namespace) -> None:
    """ConfigError names every option that nothing could be done with: a name, a port, the file of ports."""
    from framegate.serve.keys import NAME

    wrong = []
    if not NAME.fullmatch(parsed.name) or not parsed.name.strip("."):
        wrong.append(f"--name {parsed.name!r}: use 1 to 64 letters, digits, '.', '_' or '-', and not dots alone")
    if parsed.name == "stats":
        wrong.append("--name stats: /v2/models/stats is the statistics of all models; choose another")
    if not 0 <= parsed.port <= 65535:
        wrong.append(f"--port is {parsed.port}; expected 0 to 65535")
    if not -1 <= parsed.grpc_port <= 65535:
        wrong.append(f"--grpc-port is {parsed.grpc_port}; expected 0 to 65535, or -1 for no gRPC")
    if file := parsed.ports_file:
        if file.is_dir():
            wrong.append(f"--ports-file {file}: a folder; name a file in it")
        elif not file.parent.is_dir():
            wrong.append(f"--ports-file {file}: there is no folder {file.parent}")
        elif not os.access(file.parent, os.W_OK):
            wrong.append(f"--ports-file {file}: the folder {file.parent} cannot be written to")
    if wrong:
        raise ConfigError("; ".join(wrong))


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The command line as settings. ConfigError names every limit that cannot be."""
    from pydantic import ValidationError

    from framegate.serve.limits import Limits
    from framegate.serve.model import Source
    from framegate.serve.settings import Settings, ShadowSettings

    check_words(parsed)
    try:
        limits = Limits(**{name: getattr(parsed, name) for name in Limits.model_fields})
    except ValidationError as error:
        raise ConfigError(f"limits: {explain(error)}") from None
    shadow = None
    if parsed.shadow:
        source = Source(parsed.shadow, accept_host=True, public_key=parsed.public_key)
        shadow = ShadowSettings(source, 0.1 if parsed.shadow_share is None else parsed.shadow_share)
    elif parsed.shadow_share is not None:
        raise ConfigError("--shadow-share without --shadow: name the candidate's folder")
    if not 0 <= parsed.low_confidence <= 1:
        raise ConfigError(f"--low-confidence is {parsed.low_confidence:g}; expected 0 to 1")
    return Settings(
        source=Source(parsed.bundle, parsed.runtime, parsed.threads, parsed.accept_host, parsed.public_key),
        name=parsed.name,
        host=parsed.host,
        port=parsed.port,
        grpc_port=None if parsed.grpc_port < 0 else parsed.grpc_port,
        workers=parsed.workers,
        keys=parsed.keys,
        tls_cert=parsed.tls_cert,
        tls_key=parsed.tls_key,
        insecure=parsed.insecure,
        limits=limits,
        low_confidence=parsed.low_confidence,
        shadow=shadow,
        ports_file=parsed.ports_file,
    )


def run(parsed: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; exit code 0 then."""
    need_packages()
    from framegate.serve.keys import new_key

    if parsed.new_key is not None:
        key, line = new_key(parsed.new_key)
        print(f"the key, shown only now: {key}", file=sys.stderr)
        print(line)
        return 0
    from framegate.signals import noted

    with noted() as stopped:  # before the imports that take seconds
        from framegate.serve.workers import supervise

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        for noisy in ("httpx", "uvicorn"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        supervise(settings_of(parsed), stopped)
    return 0
