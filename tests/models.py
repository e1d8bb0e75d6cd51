"""What tests of model files share: a small model, headers as JSON, indexes taken apart and put together again."""

import base64
import json
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np

from codec.kernels import crc32c

# How the text of an index begins (spec section 8.2).
START = "had2ZXJzaW9uAKd0ZW5zb3Jz"

RNG = np.random.default_rng(7)


def pruned(*shape, dtype=np.float32, keep=0.2):
    values = RNG.integers(1, 100, shape).astype(dtype)
    values[RNG.random(shape) > keep] = 0
    return values


MODEL = {
    "gate": pruned(96, 128),
    "small": np.arange(6, dtype=np.float32).reshape(2, 3),
    "ids": RNG.integers(-(2**63), 2**63 - 1, 1000),
    "conv": pruned(16, 4, 3, 3, dtype=np.float16, keep=0.1),
    "scale": np.array(2.5),
    "none": np.zeros((0, 3), np.int8),
    "flags": np.array([True, False, True]),
    "norm": RNG.normal(size=300).astype(ml_dtypes.bfloat16),
}


def same(found, expected):
    assert found.shape == np.shape(expected)
    assert found.dtype == np.asarray(expected).dtype
    assert found.tobytes() == np.asarray(expected).tobytes()


def write_raw(path, header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    Path(path).write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def read_json(path):
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def resave(src, dst, *, order=sorted, metadata=True):
    """Write a file again as another tool would: other order, no alignment."""
    header, data = read_json(src)
    kept = header.pop("__metadata__")
    parts, moved = [], {"__metadata__": kept if metadata is True else metadata} if metadata else {}
    position = 0
    for name in order(header):
        start, stop = header[name]["data_offsets"]
        parts.append(data[start:stop])
        moved[name] = header[name] | {"data_offsets": [position, position + stop - start]}
        position += stop - start
    return write_raw(dst, json.dumps(moved).encode(), b"".join(parts))


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


ENTRY = b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'


def unpack(header):
    return msgpack.unpackb(base64.b64decode(header["__metadata__"]["codec"])[:-4])


def pack(header, index):
    raw = index if isinstance(index, bytes) else msgpack.packb(index)
    text = base64.b64encode(raw + crc32c(raw).to_bytes(4, "little")).decode()
    return json.dumps(header | {"__metadata__": header["__metadata__"] | {"codec": text}}).encode()
