"""A member's Ed25519 identity: its roster entry names it, its messages are signed with it."""

from __future__ import annotations

from typing import Any, Final, NewType, Self

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy.errors import BadSignature, ConfigurationError

__all__ = ["SIGNATURE_BYTES", "UNREADABLE", "Identity", "IdentityKey", "public_key", "verify"]

IdentityKey = NewType("IdentityKey", str)
"""A public identity key: 32 bytes of Ed25519 as 64 lower-case hexadecimal digits."""

SIGNATURE_BYTES: Final = 64

UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, InternalError)
"""What the library says of bytes that are no key; the last where OpenSSL itself is at a loss."""


class Identity:
    """The private half of an identity. It signs, and it is never shown, pickled or copied.

    Args:
        key: an Ed25519 private key.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = IdentityKey(key.public_key().public_bytes_raw().hex())

    @classmethod
    def generate(cls) -> Self:
        """A new identity from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """The identity in an unencrypted PKCS#8 PEM file.

        Raises:
            ConfigurationError: if it is not an Ed25519 private key.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except UNREADABLE as error:
            raise ConfigurationError("an identity is an unencrypted PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError("an identity is an Ed25519 key, not one of another kind")
        return cls(key)

    def pem(self) -> bytes:
        """PKCS#8 PEM, for a file that only its owner may read."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, context: str, message: bytes) -> bytes:
        """The signature over ``context``, a zero byte and ``message``; 64 bytes."""
        return self._key.sign(context.encode() + b"\x00" + message)

    def sign_note(self, text: bytes) -> bytes:
        """The signature over the text of a C2SP note alone; 64 bytes.

        Notes have no place for a context. They hold no zero byte and all that `sign` signs holds
        one, so a signature of the one kind never is one of the other.

        Raises:
            ValueError: if the text holds a zero byte or does not end in a line feed.
        """
        if b"\x00" in text or not text.endswith(b"\n"):
            raise ValueError("a note's text ends in a line feed and holds no zero byte")
        return self._key.sign(text)

    def __repr__(self) -> str:
        return f"<Identity {self.public[:16]}>"

    def __reduce__(self) -> Any:
        raise TypeError("an identity is never pickled or copied")


def public_key(key: IdentityKey) -> Ed25519PublicKey:
    """The public key behind its hexadecimal form."""
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


def verify(key: Ed25519PublicKey, signature: bytes, context: str, message: bytes) -> None:
    """Checks a signature that `Identity.sign` made.

    Raises:
        BadSignature: if it is not one.
    """
    try:
        key.verify(signature, context.encode() + b"\x00" + message)
    except InvalidSignature as error:
        raise BadSignature(f"the signature for {context} is not valid") from error
