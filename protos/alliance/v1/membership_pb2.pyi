from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GreetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("protocol", "software", "alliance", "authority", "now_ms", "nonce")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    ALLIANCE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    alliance: str
    authority: bytes
    now_ms: int
    nonce: bytes
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., alliance: _Optional[str] = ..., authority: _Optional[bytes] = ..., now_ms: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("secret", "request")
    SECRET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    secret: bytes
    request: bytes
    def __init__(self, secret: _Optional[bytes] = ..., request: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("member", "signing_request", "nonce", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNING_REQUEST_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: str
    signing_request: bytes
    nonce: bytes
    signature: bytes
    def __init__(self, member: _Optional[str] = ..., signing_request: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class VouchRequest(_message.Message):
    __slots__ = ("vouch",)
    VOUCH_FIELD_NUMBER: _ClassVar[int]
    vouch: bytes
    def __init__(self, vouch: _Optional[bytes] = ...) -> None: ...

class VouchReply(_message.Message):
    __slots__ = ("vouches",)
    VOUCHES_FIELD_NUMBER: _ClassVar[int]
    vouches: int
    def __init__(self, vouches: _Optional[int] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("departure",)
    DEPARTURE_FIELD_NUMBER: _ClassVar[int]
    departure: bytes
    def __init__(self, departure: _Optional[bytes] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
