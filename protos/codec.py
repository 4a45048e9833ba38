"""Flower records to wire messages and back. Array bytes stay outside: they travel in chunks.

The only module of `protos` that knows flwr. Arrays are typed raw little-endian buffers; a header
is checked against an allow-list and a byte cap before anything is allocated for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict

from privacy.errors import LinkError
from protos.alliance.v1 import exchange_pb2 as wire
from protos.limits import LIMITS

__all__ = [
    "ArraySpec",
    "TaskKey",
    "array_bytes",
    "array_specs",
    "array_to_flower",
    "blob_of",
    "chunks",
    "decode",
    "encode",
    "fits",
    "flower_to_array",
    "message_of",
    "printable",
]

RAW = "alliance.raw"
"""The serialisation name inside a Flower Array: C-order little-endian bytes, nothing else."""

_DTYPES: Mapping[str, wire.DType] = {
    "float32": wire.DTYPE_FLOAT32,
    "uint32": wire.DTYPE_UINT32,
    "uint64": wire.DTYPE_UINT64,
}
_NAMES = {number: name for name, number in _DTYPES.items()}


class TaskKey(NamedTuple):
    """What a task is: tasks with equal keys are the same task, whenever they are sent."""

    study: str
    round: int
    attempt: int
    phase: str

    @classmethod
    def of(cls, task: wire.TaskId) -> TaskKey:
        """Reads a key off the wire.

        Raises:
            LinkError: if a text in it is too long or not printable.
        """
        for text in (task.study, task.phase):
            if len(text) > LIMITS.text or not text.isprintable():
                raise LinkError("a task's study or phase is too long or not printable")
        return cls(task.study, task.round, task.attempt, task.phase)

    def to_wire(self) -> wire.TaskId:
        """The key as it travels."""
        return wire.TaskId(
            study=self.study, round=self.round, attempt=self.attempt, phase=self.phase
        )

    def __str__(self) -> str:
        return f"{self.study} round {self.round} attempt {self.attempt} {self.phase}"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """An announced array: names, dtype and shape, all checked; no bytes yet."""

    record: str
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes the array takes on the wire."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def array_to_flower(array: npt.NDArray[np.generic]) -> Array:
    """A Flower Array over the raw bytes of ``array`` (no ``np.save`` involved)."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return Array(array.dtype.name, array.shape, RAW, little.tobytes())


def flower_to_array(array: Array) -> npt.NDArray[np.generic]:
    """The numpy view of a Flower Array made here; read-only, no ``np.load`` involved.

    Raises:
        LinkError: if the array is of another serialisation, dtype or length.
    """
    if array.stype != RAW or array.dtype not in _DTYPES:
        raise LinkError(f"array of dtype {array.dtype} serialised as {array.stype}: not accepted")
    dtype = np.dtype(array.dtype).newbyteorder("<")
    if len(array.data) != math.prod(array.shape) * dtype.itemsize:
        raise LinkError(
            f"array of shape {array.shape} holds {len(array.data) / dtype.itemsize:g} values"
        )
    try:
        return np.frombuffer(array.data, dtype=dtype).reshape(array.shape)
    except (ValueError, OverflowError) as error:  # nothing, in a shape beyond all memory
        raise LinkError(f"array of shape {array.shape}: not accepted") from error


def encode(content: RecordDict) -> wire.Content:
    """The wire form of a Flower content, without the array bytes (see `array_bytes`).

    Raises:
        LinkError: if a record or value is of a kind that does not travel.
    """
    message = wire.Content()
    for name, record in content.items():
        if isinstance(record, ConfigRecord):
            values = message.configurations.add(name=name).values
            for key, value in record.items():
                values[key].CopyFrom(_scalar(key, value))
        elif isinstance(record, ArrayRecord):
            headers = message.arrays.add(name=name).headers
            for key, array in record.items():
                if array.dtype not in _DTYPES or array.stype != RAW:
                    raise LinkError(f"array {name}.{key} of dtype {array.dtype} does not travel")
                headers.add(name=key, dtype=_DTYPES[array.dtype], shape=array.shape)
        else:
            raise LinkError(f"record {name} is a {type(record).__name__}, which does not travel")
    return message


def array_bytes(content: RecordDict) -> list[bytes]:
    """The bytes of all arrays in the order in which `encode` announces them."""
    return [
        array.data
        for record in content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    ]


def message_of(content: RecordDict, metadata: Metadata) -> Message:
    """A Flower message with metadata of our own making, as flwr's own grids make it."""
    message: Message = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
    return message


def array_specs(content: wire.Content, *, most_bytes: int) -> list[ArraySpec]:
    """The arrays a message announces, checked before a byte is allocated for them.

    Args:
        content: as received.
        most_bytes: cap on all arrays together, from the terms.

    Raises:
        LinkError: if a dtype is not on the list, or a count, rank or size is over its cap.
    """
    if len(content.arrays) > LIMITS.records:  # before anything looks at each of them
        raise LinkError(f"more than {LIMITS.records} records")
    count = sum(len(group.headers) for group in content.arrays)
    if count > LIMITS.arrays:
        raise LinkError(f"{count} arrays announced, at most {LIMITS.arrays} are accepted")
    specs: list[ArraySpec] = []
    total = 0
    for group in content.arrays:
        for header in group.headers:
            if header.dtype not in _NAMES:
                raise LinkError(f"array {header.name!r:.80}: dtype {header.dtype} is not accepted")
            if len(header.shape) > LIMITS.dimensions:
                raise LinkError(f"array {header.name!r:.80}: {len(header.shape)} dimensions")
            spec = ArraySpec(group.name, header.name, _NAMES[header.dtype], tuple(header.shape))
            total += spec.size_bytes
            if total > most_bytes:
                raise LinkError(f"{total} array bytes announced, the terms allow {most_bytes}")
            specs.append(spec)
    return specs


def decode(content: wire.Content, arrays: Sequence[tuple[ArraySpec, bytes]] = ()) -> RecordDict:
    """The Flower content of a message whose arrays have arrived.

    Raises:
        LinkError: if there are too many values, a value has no kind, or a name repeats.
    """
    _check_counts(content)
    records = RecordDict()
    for item in content.configurations:
        if item.name in records:
            raise LinkError(f"record {item.name!r:.80} appears twice")
        records[item.name] = ConfigRecord(
            {key: _value(key, scalar) for key, scalar in item.values.items()}
        )
    for spec, data in arrays:
        if spec.record not in records:
            records[spec.record] = ArrayRecord()
        record = records[spec.record]
        if not isinstance(record, ArrayRecord) or spec.name in record:
            raise LinkError(f"array {spec.record!r:.80}.{spec.name!r:.80} appears twice")
        record[spec.name] = Array(spec.dtype, spec.shape, RAW, data)
    return records


def blob_of(content: wire.Content, record: str, key: str) -> bytes:
    """One blob of a message whose arrays have not arrived; empty if it is not there.

    Raises:
        LinkError: if there are too many records or values.
    """
    _check_counts(content)
    for item in content.configurations:
        if item.name == record and key in item.values:
            return item.values[key].blob
    return b""


def chunks(buffers: Iterable[bytes], size: int = LIMITS.chunk_bytes) -> Iterator[tuple[int, bytes]]:
    """Cuts array bytes into chunks of at most ``size`` bytes: (offset, data)."""
    offset = 0
    for buffer in buffers:
        for start in range(0, len(buffer), size):
            data = buffer[start : start + size]  # a whole buffer is not copied
            yield offset, data
            offset += len(data)


def fits(content: wire.Content, buffers: Sequence[bytes]) -> bool:
    """Whether array bytes travel in the frame that announces them."""
    return content.ByteSize() + sum(map(len, buffers)) <= LIMITS.chunk_bytes


def printable(sentence: str) -> str:
    """A sentence from the other side, fit for a log or a terminal."""
    kept = sentence[: LIMITS.sentence]
    return "".join(letter if letter.isprintable() else "?" for letter in kept)


def _check_counts(content: wire.Content) -> None:
    """Refuses more records and values than a message may have."""
    if len(content.configurations) > LIMITS.records:
        raise LinkError(f"more than {LIMITS.records} records")
    if sum(len(item.values) for item in content.configurations) > LIMITS.values:
        raise LinkError(f"more than {LIMITS.values} configuration values")


def _scalar(key: str, value: object) -> wire.Scalar:
    """One configuration value for the wire."""
    if isinstance(value, bool):
        return wire.Scalar(flag=value)
    if isinstance(value, int):
        return wire.Scalar(integer=value)
    if isinstance(value, float):
        return wire.Scalar(real=value)
    if isinstance(value, str):
        return wire.Scalar(text=value)
    if isinstance(value, bytes):
        return wire.Scalar(blob=value)
    raise LinkError(f"value {key} is a {type(value).__name__}, which does not travel")


def _value(key: str, scalar: wire.Scalar) -> bool | int | float | str | bytes:
    """One configuration value off the wire."""
    kind = scalar.WhichOneof("value")
    if kind is None:
        raise LinkError(f"value {key!r:.80} has no kind this version knows")
    value: bool | int | float | str | bytes = getattr(scalar, kind)
    if isinstance(value, (str, bytes)) and len(value) > LIMITS.blob_bytes:
        raise LinkError(f"value {key!r:.80} has {len(value)} bytes, at most {LIMITS.blob_bytes}")
    return value
