"""A server that others reach has keys, and a certificate that works before it listens."""

import asyncio
import logging
import re
import ssl
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from framegate.contract import ConfigError
from framegate.serve import binding
from framegate.serve.binding import Tls, check_binding, grpc_credentials, is_loopback, names_to_answer, tls_of, warn_of
from framegate.serve.binding import uvicorn_options as options
from framegate.serve.keys import Keys, new_key

DAY = timedelta(days=1)


def pair(folder: Path, name: str, start: timedelta = -DAY, end: timedelta = 365 * DAY, password: str = "") -> Tls:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    lock = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    found = Tls(folder / f"{name}.crt", folder / f"{name}.key")
    found.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    found.key.write_bytes(key.private_bytes(pem, pkcs8, lock))
    found.key.chmod(0o600)
    return found


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    file = tmp_path / "keys"
    file.write_text(new_key("a")[1])
    file.chmod(0o600)
    return Keys(file)


# --- where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str, caplog: pytest.LogCaptureFixture) -> None:
    check_binding(host, None, None, insecure=False)
    assert not caplog.records


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "2001:db8::1", "169.254.1.1"])
def test_any_other_bind_without_keys_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"--keys FILE.*127\.0\.0\.1.*--insecure"):
        check_binding(host, None, None, insecure=False)


def test_a_name_is_loopback_only_if_all_its_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"own": ["127.0.1.1", "::1"], "both": ["127.0.0.1", "192.0.2.1"], "far": ["192.0.2.1"]}
    monkeypatch.setattr(
        binding.socket, "getaddrinfo", lambda host, *_, **__: [(2, 1, 6, "", (a, 0)) for a in known[host]]
    )
    assert [is_loopback(name) for name in ("own", "both", "far")] == [True, False, False]


@pytest.mark.parametrize("host", ["no such host", "x" * 70 + ".invalid", "[::1]"])
def test_a_host_that_is_none_is_refused_by_name(host: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--host {host!r}")):
        check_binding(host, None, None, insecure=True)


def test_insecure_is_taken_at_its_word_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_binding("0.0.0.0", None, None, insecure=True)
    assert "open to anybody" in caplog.text


def test_keys_without_tls_are_warned_of(keys: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_binding("127.0.0.1", keys, None, insecure=False)
    check_binding("0.0.0.0", keys, pair(tmp_path, "a"), insecure=False)
    assert not caplog.records
    check_binding("0.0.0.0", keys, None, insecure=False)
    assert "clear text" in caplog.text


def test_a_loopback_server_answers_under_its_own_names_and_another_under_any() -> None:
    own = {"localhost", "127.0.0.1", "[::1]"}
    assert names_to_answer("127.0.0.1") == names_to_answer("localhost") == names_to_answer("::1") == own
    assert names_to_answer("127.0.0.7") == own | {"127.0.0.7"}
    assert names_to_answer("0.0.0.0") is None


# --- TLS ------------------------------------------------------------------------------------------


def test_a_matching_pair_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = pair(tmp_path, "a")
    assert tls_of(made.cert, made.key) == made
    assert tls_of(None, None) is None
    assert not caplog.records


def test_one_file_without_the_other_is_refused(tmp_path: Path) -> None:
    made = pair(tmp_path, "a")
    with pytest.raises(ConfigError, match="--tls-cert without --tls-key"):
        tls_of(made.cert, None)
    with pytest.raises(ConfigError, match="--tls-key without --tls-cert"):
        tls_of(None, made.key)


@pytest.mark.parametrize("which", ["cert", "key"])
def test_a_missing_file_is_named(tmp_path: Path, which: str) -> None:
    made = pair(tmp_path, "a")
    getattr(made, which).unlink()
    with pytest.raises(ConfigError, match=re.escape(f"{getattr(made, which)}: cannot be read")):
        tls_of(made.cert, made.key)


@pytest.mark.parametrize(
    "content", [b"", b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("which", ["cert", "key"])
def test_a_damaged_file_is_named(tmp_path: Path, which: str, content: bytes) -> None:
    made = pair(tmp_path, "a")
    getattr(made, which).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"{getattr(made, which)}: not a PEM")):
        tls_of(made.cert, made.key)


def test_swapped_files_are_refused(tmp_path: Path) -> None:
    made = pair(tmp_path, "a")
    with pytest.raises(ConfigError, match=re.escape(f"{made.key}: not a PEM certificate")):
        tls_of(made.key, made.cert)


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one, other = pair(tmp_path, "one"), pair(tmp_path, "other")
    with pytest.raises(ConfigError, match=f"{re.escape(str(other.key))}: is not the key of"):
        tls_of(one.cert, other.key)


def test_an_encrypted_key_is_refused_instead_of_asking_for_a_password(tmp_path: Path) -> None:
    made = pair(tmp_path, "a", password="secret")
    with pytest.raises(ConfigError, match=f"{re.escape(str(made.key))}: encrypted"):
        tls_of(made.cert, made.key)


@pytest.mark.parametrize(("start", "end"), [(-10 * DAY, -DAY), (DAY, 10 * DAY)])
def test_a_certificate_that_is_not_valid_now_is_refused(tmp_path: Path, start: timedelta, end: timedelta) -> None:
    made = pair(tmp_path, "a", start, end)
    with pytest.raises(ConfigError, match="not now; renew it"):
        tls_of(made.cert, made.key)


def test_a_certificate_about_to_end_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = pair(tmp_path, "a", end=3 * DAY)
    warn_of(made)
    assert "valid until" in caplog.text


def test_a_private_key_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = pair(tmp_path, "a")
    made.key.chmod(0o644)
    warn_of(made)
    assert "private key" in caplog.text


def test_uvicorn_serves_https_with_the_options(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = pair(tmp_path, "a")

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})

    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, lifespan="off", **options(tls_of(made.cert, made.key))))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(made.cert))
        with urllib.request.urlopen(f"https://localhost:{port}/?secret=1", context=trusting, timeout=5) as answer:
            assert answer.read() == b"https"
            assert answer.headers["server"] is None
    finally:
        server.should_exit = True
        thread.join(10)
    assert not [
        record for record in caplog.records if "secret" in record.getMessage() and record.name != "uvicorn.access"
    ]


def test_plain_http_has_no_tls_options() -> None:
    assert not [name for name in options(None) if name.startswith("ssl")]


def test_grpc_shows_the_same_certificate(tmp_path: Path) -> None:
    made = pair(tmp_path, "a")

    async def main() -> bytes:
        server = grpc.aio.server()
        port = server.add_secure_port("127.0.0.1:0", grpc_credentials(made))
        await server.start()
        try:
            return (await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))).encode()
        finally:
            await server.stop(0)

    assert asyncio.run(main()).strip() == made.cert.read_bytes().strip()
