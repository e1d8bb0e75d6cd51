"""Model files made to do harm: headers and indexes that lie."""

import msgpack
import numpy as np
import pytest
from models import ENTRY, START, entry, pack, read_json, unpack, write_raw

import codec.tensor
from codec.errors import ChecksumError, FormatError, VersionError
from codec.model import load_file, safe_open, save_file

# Files made to do harm.


HEADERS = {
    "not an object": b"[]",
    "leading space": b' {"x":' + ENTRY + b"}",
    "not json": b'{"x":',
    "not utf-8": b'{"\xff":1}',
    "lone surrogate": b'{"\\ud800":' + ENTRY + b"}",
    "two values": b"{} {}",
    "deep": b'{"x":' + b"[" * 200_000,
    "huge integer": b'{"x":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
    "duplicate name": b'{"x":' + ENTRY + b',"x":' + ENTRY + b"}",
    "duplicate key": b'{"x":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "nan": b'{"x":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}',
    "missing key": {"x": {"dtype": "U8", "shape": [4]}},
    "not a map": {"x": 3},
    "empty name": {"": entry()},
    "long name": {"x" * 1025: entry()},
    "unknown dtype": {"x": entry("Q7")},
    "dtype no string": {"x": entry(["U8"])},
    "shape no array": {"x": {"dtype": "U8", "shape": 4, "data_offsets": [0, 4]}},
    "negative side": {"x": entry(shape=(-4,))},
    "boolean side": {"x": entry(shape=(4, True))},
    "float side": {"x": entry(shape=(4.0,))},
    "minus zero": b'{"x":{"dtype":"U8","shape":[-0,4],"data_offsets":[0,0]},"y":' + ENTRY + b"}",
    "too many sides": {"x": entry(shape=(4,) + (1,) * 32)},
    "too large": {"x": entry(shape=(2**62, 2**62))},
    "wraps to 4": {"x": entry("F64", (2**61 + 1, 2**32, 2**32), (0, 4))},
    "zero hides overflow": {"x": entry(shape=(0, 2**62, 2**62), offsets=(0, 0)), "y": entry()},
    "half a byte": {"x": entry("F4", (7,))},
    "wrong length": {"x": entry(shape=(3,))},
    "backwards": {"x": entry(shape=(0,), offsets=(4, 0))},
    "one offset": {"x": entry(offsets=(4,))},
    "boolean offset": {"x": entry(offsets=(False, 4))},
    "hole at start": {"x": entry(shape=(3,), offsets=(1, 4))},
    "hole": {"x": entry(shape=(1,), offsets=(0, 1)), "y": entry(shape=(2,), offsets=(2, 4))},
    "overlap": {"x": entry(shape=(3,), offsets=(0, 3)), "y": entry(shape=(2,), offsets=(2, 4))},
    "twice the same": {"x": entry(), "y": entry()},
    "past the end": {"x": entry(shape=(5,), offsets=(0, 5))},
    "short of the end": {"x": entry(shape=(3,), offsets=(0, 3))},
    "metadata no map": {"__metadata__": ["x"], "x": entry()},
    "metadata no string": {"__metadata__": {"a": 1}, "x": entry()},
    "metadata surrogate": b'{"__metadata__":{"a":"\\udfff"},"x":' + ENTRY + b"}",
    "index under another key": {"__metadata__": {"coddc": START}, "x": entry()},
}


@pytest.mark.parametrize("case", HEADERS)
def test_hostile_headers(tmp_path, case):
    write_raw(tmp_path / "m", HEADERS[case], bytes(4))
    with pytest.raises(FormatError):
        load_file(tmp_path / "m")
    write_raw(tmp_path / "m", {"x": entry()}, bytes(4))
    assert load_file(tmp_path / "m")["x"].tolist() == [0] * 4


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 2**64 - 8, 100_000_001, 59, 61])
def test_hostile_header_lengths(tmp_path, length):
    write_raw(tmp_path / "m", {"x": entry()}, bytes(4), length)
    with pytest.raises(FormatError):
        safe_open(tmp_path / "m")


def _set(*path_and_value):
    """Put a value somewhere into an index."""
    *path, key, value = path_and_value

    def change(index):
        for step in path:
            index = index[step]
        index[key] = value

    return change


# Of a file with two tensors: "p", a frame, and "x", stored as itself.
FRAME, ITSELF = ("tensors", 0), ("tensors", 1)
INDEXES = {
    "newer": (_set("version", 1), VersionError),
    "newer, and other keys": (lambda index: index.update(version=1, more=index.pop("own")), VersionError),
    "negative version": (_set("version", -1), FormatError),
    "no version": (_set("version", None), FormatError),
    "boolean version": (_set("version", False), FormatError),
    "unknown key": (_set("more", 1), FormatError),
    "missing key": (lambda index: index.pop("header_crc"), FormatError),
    "key order": (lambda index: index.update(own=index.pop("own")), FormatError),
    "other header": (lambda index: index.update(header_crc=index["header_crc"] ^ 1), ChecksumError),
    "header_crc no int": (_set("header_crc", "1"), FormatError),
    "header_crc too large": (_set("header_crc", 2**32), FormatError),
    "tensors no array": (_set("tensors", {}), FormatError),
    "missing tensor": (lambda index: index["tensors"].pop(), FormatError),
    "more tensors": (lambda index: index["tensors"].append([[1]]), FormatError),
    "entries in another order": (lambda index: index["tensors"].reverse(), FormatError),
    "entry no array": (_set(*ITSELF, 7), FormatError),
    "entry of two": (_set(*ITSELF, [[1], 2]), FormatError),
    "empty entry": (_set(*ITSELF, []), FormatError),
    "dtype": (_set(*FRAME, 0, "F16"), FormatError),
    "dtype no string": (_set(*FRAME, 0, ["F32"]), FormatError),
    "unknown dtype": (_set(*FRAME, 0, "Q7"), FormatError),
    "dtype that frames have not": (_set(*FRAME, 0, "C64"), FormatError),
    "shape": (_set(*FRAME, 1, [3, 2]), FormatError),
    "shape no array": (_set(*FRAME, 1, 6), FormatError),
    "boolean side": (_set(*FRAME, 1, [True, 6]), FormatError),
    "too large a side": (_set(*FRAME, 1, [2**63]), FormatError),
    "layout no string": (_set(*FRAME, 2, 3), FormatError),
    "no layout": (_set(*FRAME, 2, None), FormatError),
    "unknown layout": (_set(*FRAME, 2, "\x1b[31m"), FormatError),
    "another layout": (_set(*FRAME, 2, "csr"), FormatError),
    "nnz": (_set(*FRAME, 3, 0), FormatError),
    "negative nnz": (_set(*FRAME, 3, -1), FormatError),
    "nnz above the size": (_set(*FRAME, 3, 7), FormatError),
    "boolean nnz": (_set(*FRAME, 3, True), FormatError),
    "frame without crc": (_set(*FRAME, 4, None), FormatError),
    "wrong crc of a frame": (_set(*FRAME, 4, 7), ChecksumError),
    "frame as itself": (_set(*FRAME, [[1]]), ChecksumError),
    "itself as a frame": (_set(*ITSELF, ["F32", [2, 3], "bitmap", 5, 7]), FormatError),
    "no crc": (_set(*ITSELF, 0, []), FormatError),
    "more crcs": (_set(*ITSELF, 0, [1, 2]), FormatError),
    "crc too large": (_set(*ITSELF, 0, [2**32]), FormatError),
    "boolean crc": (_set(*ITSELF, 0, [True]), FormatError),
    "crcs no array": (_set(*ITSELF, 0, 5), FormatError),
    "timestamp": (_set(*ITSELF, 0, msgpack.Timestamp(0)), FormatError),
    "wrong crc": (_set(*ITSELF, 0, [7]), ChecksumError),
    "aliases no map": (_set("aliases", []), FormatError),
    "alias of nothing": (_set("aliases", {"tied": "gone"}), FormatError),
    "alias of an alias": (_set("aliases", {"a": "x", "b": "a"}), FormatError),
    "alias with a name of its own": (_set("aliases", {"p": "x"}), FormatError),
    "alias of itself": (_set("aliases", {"a": "a"}), FormatError),
    "alias of a list": (_set("aliases", {"a": ["x"]}), FormatError),
    "aliases in another order": (_set("aliases", {"b": "x", "a": "x"}), FormatError),
    "alias that is no name": (_set("aliases", {"": "x"}), FormatError),
    "bytes as alias": (_set("aliases", {b"a": "x", "b": "x"}), FormatError),
    "alias too long": (_set("aliases", {"a" * 1025: "x"}), FormatError),
    "own no string": (_set("own", 3), FormatError),
    "own is an index": (_set("own", START), FormatError),
}


@pytest.mark.parametrize("case", INDEXES)
def test_hostile_indexes(tmp_path, case):
    change, error = INDEXES[case]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"x": x, "p": codec.tensor.encode(x, layout="bitmap", entropy="none")}, tmp_path / "m")
    header, data = read_json(tmp_path / "m")
    index = unpack(header)
    write_raw(tmp_path / "m", pack(header, index), data)
    load_file(tmp_path / "m")
    change(index)
    write_raw(tmp_path / "m", pack(header, index), data)
    with pytest.raises(error) as caught:
        load_file(tmp_path / "m")
    assert type(caught.value) is error


BEGIN = START.encode()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (START, ChecksumError), (START + "AAA=", ChecksumError), (START + "AAAAAA==", ChecksumError),
        (START + "AAB=", FormatError), (START + "AAAAAB==", FormatError), (START + "AAAAAA=", FormatError),
        (START + "A", FormatError), (START + " ", FormatError), (START + "_A==", FormatError),
        (START + "\u00e9", FormatError), (START[:12], ChecksumError), ("A" * 12 + START[12:], ChecksumError),
        ("\u00e9" * 12 + START[12:], FormatError),
    ],
)  # fmt: skip
def test_index_text(tmp_path, text, error):
    write_raw(tmp_path / "m", {"__metadata__": {"codec": text}, "x": entry()}, bytes(4))
    with pytest.raises(error) as caught:
        safe_open(tmp_path / "m")
    assert type(caught.value) is error


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80\x80", b"\x91" * 5000, b"\xa1\xff", b"\xdf\xff\xff\xff\xff"])
def test_index_that_is_not_canonical_msgpack(tmp_path, raw):
    header = {"__metadata__": {}, "x": entry()}
    write_raw(tmp_path / "m", pack(header, b"\x85\xa7version" + raw), bytes(4))
    with pytest.raises(FormatError, match="index"):
        safe_open(tmp_path / "m")


def test_index_with_longer_integers(tmp_path):
    save_file({"x": np.zeros(4, np.uint8)}, tmp_path / "m")
    header, data = read_json(tmp_path / "m")
    raw = msgpack.packb(unpack(header))
    for short, long, words in (
        (b"\xa7version\x00", b"\xa7version\xcc\x00", "does not begin"),
        (b"\xa3own", b"\xd9\x03own", "canonical"),
    ):
        write_raw(tmp_path / "m", pack(header, raw.replace(short, long)), data)
        with pytest.raises(FormatError, match=words):
            safe_open(tmp_path / "m")
