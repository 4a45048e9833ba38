from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import LinkError
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import (
    TaskKey,
    array_bytes,
    array_specs,
    array_to_flower,
    blob_of,
    chunks,
    decode,
    encode,
    flower_to_array,
)
from protos.limits import LIMITS

KEY = TaskKey("coupons", 3, 1, "contribute")
scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=50)
    | st.binary(max_size=50)
)


def received(content: RecordDict, size: int = 7) -> RecordDict:
    """Sends a content through the wire and back, its arrays in chunks of ``size`` bytes."""
    message = wire.Content.FromString(encode(content).SerializeToString())
    specs = array_specs(message, most_bytes=1 << 20)
    data = b"".join(part for _, part in chunks(array_bytes(content), size))
    arrays, offset = [], 0
    for spec in specs:
        arrays.append((spec, data[offset : offset + spec.size_bytes]))
        offset += spec.size_bytes
    assert offset == len(data)
    return decode(message, arrays)


@given(st.dictionaries(st.text(min_size=1, max_size=20), scalars, max_size=10))
def test_configuration_survives_the_wire(
    values: dict[str, bool | int | float | str | bytes],
) -> None:
    content = RecordDict({"task": ConfigRecord(values)})
    back = received(content).config_records["task"]
    assert dict(back) == values
    assert {key: type(value) for key, value in back.items()} == {
        key: type(value) for key, value in values.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "uint32", "uint64"])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (3, 4), ()])
def test_arrays_survive_the_wire(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    other = np.arange(3, dtype=np.float32)
    content = RecordDict(
        {
            "model": ArrayRecord({"a": array_to_flower(array), "b": array_to_flower(other)}),
            "more": ArrayRecord({"c": array_to_flower(array)}),
        }
    )
    back = received(content)
    for record, name, expected in (
        ("model", "a", array),
        ("model", "b", other),
        ("more", "c", array),
    ):
        got = flower_to_array(back.array_records[record][name])
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_task_keys_survive_the_wire() -> None:
    assert TaskKey.of(wire.TaskId.FromString(KEY.to_wire().SerializeToString())) == KEY


@pytest.mark.parametrize("dtype", [0, 9, 2**30])
def test_unknown_dtype_is_refused(dtype: int) -> None:
    message = wire.Content()
    message.arrays.add(name="m").headers.add(name="a", dtype=dtype, shape=[1])  # type: ignore[arg-type]
    with pytest.raises(LinkError, match="is not accepted"):
        array_specs(message, most_bytes=100)


def test_a_header_claiming_billions_allocates_nothing() -> None:
    message = wire.Content()
    message.arrays.add(name="m").headers.add(
        name="a", dtype=wire.DTYPE_FLOAT32, shape=[2**40, 2**40]
    )
    tracemalloc.start()
    with pytest.raises(LinkError, match="the terms allow 400"):
        array_specs(message, most_bytes=400)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_cap_holds_over_all_arrays_together() -> None:
    message = wire.Content()
    for name in "ab":
        message.arrays.add(name=name).headers.add(name="x", dtype=wire.DTYPE_UINT32, shape=[60])
    with pytest.raises(LinkError, match="480 array bytes announced, the terms allow 400"):
        array_specs(message, most_bytes=400)


def test_too_many_arrays_dimensions_and_values_are_refused() -> None:
    many = wire.Content()
    group = many.arrays.add(name="m")
    for index in range(LIMITS.arrays + 1):
        group.headers.add(name=str(index), dtype=wire.DTYPE_UINT32, shape=[0])
    with pytest.raises(LinkError, match="arrays announced"):
        array_specs(many, most_bytes=100)
    deep = wire.Content()
    deep.arrays.add(name="m").headers.add(name="a", dtype=wire.DTYPE_UINT32, shape=[1] * 9)
    with pytest.raises(LinkError, match="9 dimensions"):
        array_specs(deep, most_bytes=100)
    wide = wire.Content()
    values = wide.configurations.add(name="c").values
    for index in range(LIMITS.values + 1):
        values[str(index)].integer = index
    with pytest.raises(LinkError, match="configuration values"):
        decode(wide)


def test_a_frame_full_of_empty_records_is_refused_without_a_look_at_each() -> None:
    content = wire.Content.FromString(b"\x0a\x00\x12\x00" * 200_000)
    for read in (
        lambda: array_specs(content, most_bytes=0),
        lambda: decode(content),
        lambda: blob_of(content, "signed", "signature"),
    ):
        with pytest.raises(LinkError, match="more than 16 records"):
            read()


def test_a_value_without_a_kind_and_a_repeated_name_are_refused() -> None:
    message = wire.Content()
    message.configurations.add(name="c").values["x"].CopyFrom(wire.Scalar())
    with pytest.raises(LinkError, match="has no kind"):
        decode(message)
    twice = wire.Content()
    twice.configurations.add(name="c")
    twice.configurations.add(name="c")
    with pytest.raises(LinkError, match="appears twice"):
        decode(twice)


def test_what_does_not_travel_is_said() -> None:
    with pytest.raises(LinkError, match="a MetricRecord, which does not travel"):
        encode(RecordDict({"m": MetricRecord({"x": 1.0})}))
    with pytest.raises(LinkError, match="is a list, which does not travel"):
        encode(RecordDict({"c": ConfigRecord({"x": [1, 2]})}))


def test_foreign_serialisations_are_never_parsed() -> None:
    pickled = Array("float32", (1,), "numpy.ndarray", b"\x93NUMPY junk")
    with pytest.raises(LinkError, match="not accepted"):
        flower_to_array(pickled)
    with pytest.raises(LinkError, match="holds 2 values"):
        flower_to_array(Array("float32", (3,), "alliance.raw", bytes(8)))
    with pytest.raises(LinkError, match=r"holds 1\.75 values"):
        flower_to_array(Array("float32", (2,), "alliance.raw", bytes(7)))
    for shape in ((0, 2**62, 8), (0, 2**64)):
        with pytest.raises(LinkError, match="not accepted"):
            flower_to_array(Array("float32", shape, "alliance.raw", b""))


def test_a_full_chunk_fits_its_frame() -> None:
    key = TaskKey("s" * 63, 2**32 - 1, 2**32 - 1, "contribute")
    ((offset, data),) = chunks([bytes(LIMITS.chunk_bytes)])
    chunk = wire.Chunk(id=key.to_wire(), offset=2**63 + offset, data=data)
    assert wire.MemberFrame(chunk=chunk).ByteSize() <= LIMITS.frame_bytes


def test_the_wire_never_loads_pickle_or_numpy_files() -> None:
    """np.load and pickle.loads are broken on purpose; the codec does not notice."""
    program = (
        "import protos, numpy as np, pickle\n"
        "def refuse(*a, **k): raise SystemExit('parsed a foreign format')\n"
        "np.load = np.save = pickle.loads = refuse\n"
        "from protos.codec import *\n"
        "a = array_to_flower(np.arange(3, dtype=np.float32))\n"
        "assert flower_to_array(a).tolist() == [0.0, 1.0, 2.0]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
