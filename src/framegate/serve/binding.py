"""Where the server may listen: loopback, or with keys; and its certificate, checked before anything listens.

Says no before the port is open: a server that forgot its keys must not have answered anybody.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framegate.contract import ConfigError
from framegate.serve.keys import Keys, readable_by_others

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

EVERYWHERE = ("", "0.0.0.0", "::")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
WARN_BEFORE = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate chain and its private key, PEM files that were found to match."""

    cert: Path
    key: Path


def check_binding(host: str, keys: Keys | None, tls: Tls | None, insecure: bool) -> None:
    """ConfigError for a bind beyond loopback without keys, unless `insecure`; logs a warning for what stays open."""
    if is_loopback(host):
        return
    shown = host or "every interface"
    if keys is None and not insecure:
        raise ConfigError(
            f"--host {shown}: reachable from other machines, and without keys anybody could use it; "
            "name a file of keys (--keys FILE), listen on 127.0.0.1, or say --insecure"
        )
    if keys is None:
        logger.warning("--insecure: %s is open to anybody who reaches it", shown)
    elif tls is None:
        logger.warning("%s: keys travel in clear text; add --tls-cert and --tls-key, or end TLS in front of it", shown)


def is_loopback(host: str) -> bool:
    """Whether everything that a host to bind to resolves to is loopback; ConfigError when it resolves to nothing."""
    if host in EVERYWHERE:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host!r}: not an address or name of this machine ({error})") from None
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def names_to_answer(host: str) -> frozenset[str] | None:
    """The names a Host header may hold, without port: on loopback its own (a page must not rebind to it), else any."""
    if not is_loopback(host):
        return None
    return LOOPBACK_NAMES | {f"[{host}]" if ":" in host else host.lower()}


# --- TLS ------------------------------------------------------------------------------------------


def tls_of(cert: Path | None, key: Path | None) -> Tls | None:
    """The certificate and key, both or none; ConfigError names the file that is missing, damaged or does not match."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, other = ("--tls-key", "--tls-cert") if cert is None else ("--tls-cert", "--tls-key")
        raise ConfigError(f"{given} without {other}: a server certificate needs both")
    for file in (cert, key):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    _check_certificate(cert)
    _check_pair(cert, key)
    return Tls(cert, key)


def warn_of(tls: Tls) -> None:
    """Log a warning when the certificate ends soon, and when others may read its key; `tls_of` checked them."""
    end = _check_certificate(tls.cert)
    if end - datetime.now(UTC) < WARN_BEFORE:
        logger.warning("%s: valid until %s UTC only", tls.cert, f"{end:%Y-%m-%d %H:%M}")
    if readable_by_others(tls.key):
        logger.warning("%s: other users may read or write this private key; chmod 640 it", tls.key)


def _check_certificate(cert: Path) -> datetime:
    """When it ends. ConfigError when the first certificate is none or not valid now."""
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificate(cert.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{cert}: not a PEM certificate ({str(error).splitlines()[0]})") from None
    start, end, now = first.not_valid_before_utc, first.not_valid_after_utc, datetime.now(UTC)
    if not start <= now <= end:
        raise ConfigError(f"{cert}: valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, not now; renew it")
    return end


def _check_pair(cert: Path, key: Path) -> None:
    def no_password() -> str:  # else OpenSSL asks on the terminal
        raise ConfigError(f"{key}: encrypted; a server starts unattended: remove the password, protect the file")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key}: is not the key of the certificate {cert}") from None
        raise ConfigError(f"{key}: not a PEM private key that OpenSSL takes ({error.reason or error})") from None


def uvicorn_options(tls: Tls | None) -> dict[str, Any]:
    """What `uvicorn.Config` needs for safety's sake: TLS, no software version, and no lines with query strings."""
    options: dict[str, Any] = {"access_log": False, "log_level": "warning", "server_header": False}
    if tls is not None:
        options |= {"ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)}
    return options


def grpc_credentials(tls: Tls) -> grpc.ServerCredentials:
    """The same certificate for `grpc.aio.Server.add_secure_port`."""
    import grpc

    return grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
