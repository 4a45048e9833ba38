"""Identities: what signs, what is refused as one, and what is never shown."""

from __future__ import annotations

import base64
import copy
import pickle

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.errors import BadSignature, ConfigurationError
from privacy.identity import SIGNATURE_BYTES, Identity, IdentityKey, public_key, verify
from tests.conftest import identity

# RFC 8032, section 7.1, test 1.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

CONTEXT = "alliance/v1/test"


def test_the_public_half_is_the_published_one():
    own = Identity(Ed25519PrivateKey.from_private_bytes(SECRET))
    assert own.public == PUBLIC
    assert public_key(own.public).public_bytes_raw().hex() == PUBLIC


def test_pem_comes_back_as_the_same_identity():
    own = Identity.generate()
    again = Identity.from_pem(own.pem())
    assert again.public == own.public
    assert again.sign(CONTEXT, b"x") == own.sign(CONTEXT, b"x")
    assert own.pem().startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_every_identity_is_new():
    assert len({Identity.generate().public for _ in range(5)}) == 5


def pem_of(key, password=None):
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        X25519PrivateKey.generate,
        Ed448PrivateKey.generate,
    ],
    ids=["P-256", "RSA", "X25519", "Ed448"],
)
def test_keys_of_another_kind_are_refused(make):
    with pytest.raises(ConfigurationError, match="an Ed25519 key, not one of another kind"):
        Identity.from_pem(pem_of(make()))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a key",
        pem_of(Ed25519PrivateKey.from_private_bytes(SECRET), b"password"),
        pem_of(Ed25519PrivateKey.from_private_bytes(SECRET))[:60],
        Ed25519PrivateKey.from_private_bytes(SECRET)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "text", "encrypted", "cut", "public"],
)
def test_files_that_are_no_private_key_are_refused(pem):
    with pytest.raises(ConfigurationError, match="unencrypted PEM private key"):
        Identity.from_pem(pem)


def test_a_key_that_openssl_itself_is_at_a_loss_over_is_refused():
    """An Ed25519 key under the identifier of X448: found by fuzzing, an internal error before."""
    pem = Identity.generate().pem().decode()
    lines = pem.splitlines()
    der = base64.b64decode(lines[1]).replace(bytes.fromhex("2b6570"), bytes.fromhex("2b656f"))
    lines[1] = base64.b64encode(der).decode()
    with pytest.raises(ConfigurationError, match="unencrypted PEM private key"):
        Identity.from_pem("\n".join(lines).encode())


def test_a_signature_is_over_context_zero_byte_and_message():
    own = identity("one")
    signature = own.sign(CONTEXT, b"message")
    assert len(signature) == SIGNATURE_BYTES
    public_key(own.public).verify(signature, b"alliance/v1/test\x00message")
    for context in (CONTEXT, "alliance/v1/other"):
        verify(public_key(own.public), own.sign(context, b"message"), context, b"message")
    with pytest.raises(BadSignature, match="signature for alliance/v1/other is not valid"):
        verify(public_key(own.public), signature, "alliance/v1/other", b"message")


@pytest.mark.parametrize(
    ("signer", "context", "message", "cut"),
    [
        ("two", CONTEXT, b"message", 64),
        ("one", "alliance/v1/other", b"message", 64),
        ("one", CONTEXT, b"massage", 64),
        ("one", CONTEXT, b"", 64),
        ("one", CONTEXT, b"message", 63),
        ("one", CONTEXT, b"message", 0),
    ],
)
def test_signatures_of_anything_else_are_refused(signer, context, message, cut):
    signature = identity(signer).sign(context, message)[:cut]
    with pytest.raises(BadSignature, match=f"signature for {CONTEXT} is not valid"):
        verify(public_key(identity("one").public), signature, CONTEXT, b"message")


def test_a_changed_signature_is_refused():
    own = identity("one")
    signature = bytearray(own.sign(CONTEXT, b"message"))
    for place in range(SIGNATURE_BYTES):
        changed = bytearray(signature)
        changed[place] ^= 1
        with pytest.raises(BadSignature):
            verify(public_key(own.public), bytes(changed), CONTEXT, b"message")


@pytest.mark.parametrize("key", ["", "zz" * 32, PUBLIC[:-2], PUBLIC + "00"])
def test_public_keys_have_64_digits(key):
    with pytest.raises(ValueError, match=r"32 bytes|hexadecimal|fromhex"):
        public_key(IdentityKey(key))


def test_neither_repr_nor_pickle_nor_copy_gives_the_key_away():
    own = Identity(Ed25519PrivateKey.from_private_bytes(SECRET))
    assert repr(own) == str(own) == f"<Identity {PUBLIC[:16]}>"
    assert not hasattr(own, "__dict__")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled or copied"):
            attempt(own)
