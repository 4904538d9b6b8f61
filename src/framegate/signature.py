"""A signature over promotion.json: who shipped, beyond what the digests say.

Digests show integrity: a file that was damaged, or changed by somebody who did not know, no longer fits. Whoever
can write the folder can compute them again. Against a forger the ship signs promotion.json, which names by
digest the bundle, the verdict, all evidence and the upstream entries of dvc.lock: one signature covers them all.

Ed25519 (RFC 8032), not an HMAC: a verifier of an HMAC holds the secret and could forge with it; here a public
key is enough, so it may stand in a README. It is deterministic: signing twice gives the same bytes. The 64 raw
bytes lie in promotion.json.sig, so that OpenSSL alone can check them::

    openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem        # keep it; FRAMEGATE_SIGNING_KEY=key.pem
    openssl pkey -in key.pem -pubout -out public.pem                            # give it away
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in promotion.json -sigfile promotion.json.sig

Not here: whether the folder is what promotion.json says (`promotion.archive.check_promotion`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from framegate.contract import BundleError, ConfigError, write_bytes

SigningKey = Ed25519PrivateKey
SIGNING_KEY = "FRAMEGATE_SIGNING_KEY"
SIGNED, SIGNATURE = "promotion.json", "promotion.json.sig"
log = logging.getLogger(__name__)


def load_private(path: Path) -> SigningKey:
    """The signing key. ConfigError unless it is an Ed25519 private key in PEM, without a passphrase."""
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path}: not a PEM private key without a passphrase ({error}); {SIGNING_KEY} names one made by "
            "`openssl genpkey -algorithm ed25519 -out key.pem`"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: the key is {_kind(key)}, expected Ed25519; openssl genpkey -algorithm ed25519")
    if path.stat().st_mode & 0o077:
        log.warning("%s: others on this machine may read the signing key; chmod 600 %s", path, path)
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """A verifier's key. ConfigError unless it is an Ed25519 public key in PEM."""
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path}: not a PEM public key ({error}); `openssl pkey -in key.pem -pubout` prints the private key's"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: the key is {_kind(key)}, expected Ed25519")
    return key


def sign(folder: Path, key: SigningKey) -> None:
    """Write promotion.json.sig over the bytes of folder/promotion.json."""
    write_bytes(folder / SIGNATURE, key.sign((folder / SIGNED).read_bytes()))


def check_signature(folder: Path, public_key: Path) -> None:
    """BundleError when folder/promotion.json was not signed by the owner of `public_key`."""
    key = load_public(public_key)
    for name in (SIGNED, SIGNATURE):
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name}: missing, so nothing is signed; ship with {SIGNING_KEY} set")
    try:
        key.verify((folder / SIGNATURE).read_bytes(), (folder / SIGNED).read_bytes())
    except InvalidSignature:
        raise BundleError(
            f"{folder / SIGNATURE}: not a signature of {SIGNED} by the key {public_key}; "
            f"{SIGNED} was changed after shipping, or somebody else shipped it"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the key cannot be read: {error.strerror}") from None


def _kind(key: object) -> str:
    return type(key).__name__.removesuffix("Key").removesuffix("Private").removesuffix("Public").strip("_")
