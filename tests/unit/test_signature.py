"""The signature: who shipped. It is checked with OpenSSL as well, which knows nothing of this project."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from framegate.contract import BundleError, ConfigError
from framegate.promotion.archive import check_promotion
from framegate.promotion.origin import Origin
from framegate.promotion.ship import rollback, ship
from framegate.signature import check_signature, load_private
from tests.promoted import NO_REGISTRY, A, B, judged, origin


def write_keys(folder: Path, name: str = "key", key=None) -> tuple[Path, Path]:
    """PEM files, private and public."""
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A shipped folder that was signed, and the public key."""
    private, public = write_keys(tmp_path)
    exports = tmp_path / "exports"
    judged(exports, A)
    ship(exports, origin(key=load_private(private)), NO_REGISTRY)
    return exports / "shipped", public


def test_what_was_signed_at_ship_is_accepted_with_the_public_key(signed: tuple[Path, Path]) -> None:
    check_signature(*signed)
    assert len((signed[0] / "promotion.json.sig").read_bytes()) == 64


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_agrees(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin",
             "-in", "promotion.json", "-sigfile", "promotion.json.sig"]  # fmt: skip
    assert subprocess.run(words, cwd=folder, capture_output=True).returncode == 0
    (folder / "promotion.json").write_text("{}")
    assert subprocess.run(words, cwd=folder, capture_output=True).returncode == 1


def test_a_forger_who_computes_every_digest_again_is_caught(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    path = folder / "promotion.json"
    path.write_text(path.read_text().replace('"git_dirty": false', '"git_dirty": true'))
    check_promotion(folder)  # the digests fit
    with pytest.raises(BundleError, match=r"not a signature of promotion.json by the key"):
        check_signature(folder, public)


def test_another_key_and_no_signature_are_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    _, other = write_keys(tmp_path, "other")
    with pytest.raises(BundleError, match="somebody else shipped it"):
        check_signature(signed[0], other)
    (signed[0] / "promotion.json.sig").write_bytes(b"short")
    with pytest.raises(BundleError, match="not a signature"):
        check_signature(*signed)
    (signed[0] / "promotion.json.sig").unlink()
    with pytest.raises(BundleError, match="FRAMEGATE_SIGNING_KEY"):
        check_signature(*signed)


def test_a_promotion_is_signed_when_it_ships_again_with_a_key_and_stays_so_in_a_rollback(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    exports = tmp_path / "exports"
    judged(exports, A)
    ship(exports, origin(), NO_REGISTRY)
    before = (exports / "shipped/promotion.json").read_bytes()
    ship(exports, origin(key=load_private(private)), NO_REGISTRY)
    assert (exports / "shipped/promotion.json").read_bytes() == before
    check_signature(exports / "shipped", public)
    judged(exports, B)
    ship(exports, origin(), NO_REGISTRY)
    rollback(exports, None, "", "t", NO_REGISTRY)
    check_signature(exports / "shipped", public)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 1024)])
def test_only_ed25519_keys_sign_and_verify(tmp_path: Path, signed: tuple[Path, Path], key: object) -> None:
    private, public = write_keys(tmp_path, "wrong", key)
    with pytest.raises(ConfigError, match=r"the key is (EC|RSA), expected Ed25519"):
        load_private(private)
    with pytest.raises(ConfigError, match=r"the key is (EC|RSA), expected Ed25519"):
        check_signature(signed[0], public)


def test_files_that_are_no_key_are_refused_by_name(tmp_path: Path, signed: tuple[Path, Path]) -> None:
    private, public = write_keys(tmp_path)
    with pytest.raises(ConfigError, match=r"gone\.pem: the key cannot be read: No such file"):
        load_private(tmp_path / "gone.pem")
    with pytest.raises(ConfigError, match="not a PEM private key"):
        load_private(public)
    with pytest.raises(ConfigError, match="not a PEM public key"):
        check_signature(signed[0], private)


def test_a_key_that_others_may_read_is_only_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    private, _ = write_keys(tmp_path)
    load_private(private)
    assert not caplog.records
    private.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_private(private)
    assert "chmod 600" in caplog.text


def test_the_environment_names_the_key_and_a_wrong_one_stops_the_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRAMEGATE_SIGNING_KEY", raising=False)
    assert Origin.here({}).key is None
    monkeypatch.setenv("FRAMEGATE_SIGNING_KEY", str(write_keys(tmp_path)[0]))
    assert Origin.here({}).key is not None
    monkeypatch.setenv("FRAMEGATE_SIGNING_KEY", str(tmp_path / "gone.pem"))
    with pytest.raises(ConfigError, match="cannot be read"):
        Origin.here({})
