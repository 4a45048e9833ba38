from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_UINT32: _ClassVar[DType]
    DTYPE_UINT64: _ClassVar[DType]
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_UINT32: DType
DTYPE_UINT64: DType

class MemberFrame(_message.Message):
    __slots__ = ("hello", "answer", "chunk", "refusal")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    answer: Answer
    chunk: Chunk
    refusal: Refusal
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class CoordinatorFrame(_message.Message):
    __slots__ = ("welcome", "task", "chunk", "clear", "receipt", "rejection")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CLEAR_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    task: Task
    chunk: Chunk
    clear: Clear
    receipt: Receipt
    rejection: Rejection
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., clear: _Optional[_Union[Clear, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., rejection: _Optional[_Union[Rejection, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "software")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "member")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    member: str
    def __init__(self, protocol: _Optional[int] = ..., member: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "deadline_ms", "content", "cleared", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    deadline_ms: int
    content: Content
    cleared: bool
    data: bytes
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., content: _Optional[_Union[Content, _Mapping]] = ..., cleared: bool = ..., data: _Optional[bytes] = ...) -> None: ...

class TaskId(_message.Message):
    __slots__ = ("study", "round", "attempt", "phase")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    study: str
    round: int
    attempt: int
    phase: str
    def __init__(self, study: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., phase: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("id", "content", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    content: Content
    data: bytes
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., content: _Optional[_Union[Content, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("id", "offset", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    offset: int
    data: bytes
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Clear(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("id", "sha256")
    ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    sha256: bytes
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("id", "code", "sentence")
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    code: int
    sentence: str
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., code: _Optional[int] = ..., sentence: _Optional[str] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("id", "sentence")
    ID_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    sentence: str
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., sentence: _Optional[str] = ...) -> None: ...

class Content(_message.Message):
    __slots__ = ("configurations", "arrays")
    CONFIGURATIONS_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    configurations: _containers.RepeatedCompositeFieldContainer[Configuration]
    arrays: _containers.RepeatedCompositeFieldContainer[ArrayGroup]
    def __init__(self, configurations: _Optional[_Iterable[_Union[Configuration, _Mapping]]] = ..., arrays: _Optional[_Iterable[_Union[ArrayGroup, _Mapping]]] = ...) -> None: ...

class Configuration(_message.Message):
    __slots__ = ("name", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.MessageMap[str, Scalar]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Mapping[str, Scalar]] = ...) -> None: ...

class Scalar(_message.Message):
    __slots__ = ("integer", "real", "flag", "text", "blob")
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    integer: int
    real: float
    flag: bool
    text: str
    blob: bytes
    def __init__(self, integer: _Optional[int] = ..., real: _Optional[float] = ..., flag: bool = ..., text: _Optional[str] = ..., blob: _Optional[bytes] = ...) -> None: ...

class ArrayGroup(_message.Message):
    __slots__ = ("name", "headers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    headers: _containers.RepeatedCompositeFieldContainer[ArrayHeader]
    def __init__(self, name: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[ArrayHeader, _Mapping]]] = ...) -> None: ...

class ArrayHeader(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...
