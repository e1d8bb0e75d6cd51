"""Section 8 of format.md, plainly: model files. ``read_file`` reads one."""

import base64
import binascii
import json
import math
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from head import DTYPES, ELEMENT_TYPES, LAYOUTS, MAGIC
from head_words import LIMITS, SpecError, crc32c, integer, integers, need, refuse, unpack
from reader import read_frame

__all__ = ["SpecError", "read_file"]

# Section 8.1: bits of all types of safetensors.
TYPE_BITS = {name: row[0] for name, row in ELEMENT_TYPES.items()}
TYPE_BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64}
# Section 8.2: characters 0 to 11 of the index of any version, and 12 to 23 of that of version 0.
START = ("had2ZXJzaW9u", "AKd0ZW5zb3Jz")
# Section 8.3: the keys of the index, and what an entry has, in order.
INDEX = ("version", "tensors", "aliases", "own", "header_crc")
FRAME_ENTRY = ("dtype", "shape", "layout", "nnz", "crc")
PLAIN_ENTRY = ("crcs",)
CRC_STEP = 1 << 20

Tensors = dict[str, tuple[str, list[int], bytes]]


# Section 8.1 ---------------------------------------------------------------------------------------------------------


class Number(str):
    """A number of the JSON header as it is spelled: only some have to be integers, and only these are judged."""


def constant(text: str) -> None:
    refuse(f"JSON: {text}")


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(len({key for key, _ in pairs}) == len(pairs), "JSON: a key occurs twice")
    return dict(pairs)


def nesting(value: Any) -> int:
    """How many objects and arrays lie within one another."""
    deepest, left = 0, [(value, 1)]
    while left:
        one, depth = left.pop()
        if isinstance(one, dict | list):
            deepest = max(deepest, depth)
            left += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]
    return deepest


def read_json(raw: bytes) -> dict[str, Any]:
    need(raw[:1] == b"{", "file: no safetensors header")
    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=object_of,
            parse_int=Number,
            parse_float=Number,
            parse_constant=constant,
        )
        need(nesting(header) <= LIMITS["nesting"], "JSON: too deep")
        json.dumps(header, ensure_ascii=False).encode()  # lone surrogates, which only escapes can spell, fail here
    except (json.JSONDecodeError, UnicodeError, RecursionError) as error:
        refuse(f"file: {error}")
    return dict(header)


def naturals(value: Any, where: str) -> list[int]:
    need(type(value) is list and all(type(one) is Number for one in value), f"{where}: expected an array of integers")
    need(all(one.isdecimal() and len(one) <= 19 for one in value), f"{where}: an integer is not digits, or too long")
    return integers([int(one) for one in value], where)


def is_name(name: Any) -> bool:
    return type(name) is str and 1 <= len(name.encode()) <= LIMITS["name"]


def read_container(data: bytes) -> tuple[Tensors, dict[str, str]]:
    """Name -> (dtype, shape, bytes), and the metadata."""
    need(len(data) >= 8, "file: no header length")
    length = int.from_bytes(data[:8], "little")
    need(length <= min(LIMITS["JSON header"], len(data) - 8), "file: a header beyond the file")
    header = read_json(data[8 : 8 + length])
    body = data[8 + length :]
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    need(type(metadata) is dict and all(type(value) is str for value in metadata.values()), "file: metadata")
    tensors, spans = {}, []
    for name, about in header.items():
        need(is_name(name), "file: a name is empty or too long")
        need(type(about) is dict and {"dtype", "shape", "data_offsets"} <= about.keys(), f"file: keys of {name!r}")
        dtype, shape, offsets = about["dtype"], naturals(about["shape"], name), naturals(about["data_offsets"], name)
        need(type(dtype) is str and dtype in TYPE_BITS, f"file: dtype of {name!r}")
        need(len(shape) <= LIMITS["dimensions"], f"file: dimensions of {name!r}")
        bits = TYPE_BITS[dtype]
        need(bits * math.prod(side or 1 for side in shape) <= 8 * LIMITS["integer"], f"file: size of {name!r}")
        right = len(offsets) == 2 and 8 * (offsets[1] - offsets[0]) == bits * math.prod(shape)
        need(right, f"file: data_offsets of {name!r}")
        tensors[name] = (dtype, shape, body[slice(*offsets)])
        spans.append(offsets)
    edges = [0, *(edge for span in sorted(spans) for edge in span), len(body)]
    need(all(a == b for a, b in zip(edges[::2], edges[1::2], strict=True)), "file: holes or overlaps")
    return tensors, metadata


# Sections 8.2 and 8.3 ------------------------------------------------------------------------------------------------


def is_index(text: str) -> bool:
    return text[:12] == START[0] or text[12:24] == START[1]


def read_version(packed: bytes) -> None:
    """Rules R8.3c and R8.3d: nothing else of the index is looked at."""
    start = base64.b64decode(START[0])
    unpacker = msgpack.Unpacker()
    unpacker.feed(packed[len(start) :])
    try:
        version = unpacker.unpack()
    except (ValueError, msgpack.UnpackException):
        version = None
    begins = type(version) is int and packed.startswith(start + msgpack.packb(version))
    need(begins and version >= 0, "index: no map that begins with a version")
    need(version == 0, f"index version {version}", "version")


def read_frame_entry(entry: list[Any], where: str) -> None:
    dtype, shape, layout, nnz, crc = entry
    need(type(dtype) is str and dtype in ELEMENT_TYPES, f"{where}: dtype")
    shape = integers(shape, where)
    size = math.prod(side or 1 for side in shape)
    need(len(shape) <= LIMITS["dimensions"], f"{where}: dimensions")
    need(size * TYPE_BITS[dtype] // 8 <= LIMITS["integer"], f"{where}: size")
    need(type(layout) is str and layout in LAYOUTS, f"{where}: layout")
    integer(nnz, where, math.prod(shape))
    integer(crc, where, LIMITS["checksum"])


def read_index(text: str, tensors: Tensors, metadata: dict[str, str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Name -> entry, and the whole index."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        refuse(f"index: {error}")
    need(base64.b64encode(raw).decode() == text and len(raw) >= 4, "index: base64 is not canonical")
    need(crc32c(raw[:-4]) == int.from_bytes(raw[-4:], "little"), "index", "checksum")
    read_version(raw[:-4])
    index, used = unpack(raw[:-4])
    need(used == len(raw) - 4, "index: bytes behind the msgpack")
    need(type(index) is dict and tuple(index) == INDEX, f"index: expected a map with the keys {INDEX}")
    _, listed, aliases, own, header_crc = index.values()
    need(type(listed) is list and len(listed) == len(tensors), "index: other tensors than the file's")
    entries = dict(zip(sorted(tensors), listed, strict=True))
    for name, entry in entries.items():
        where, (dtype, shape, data) = f"index of {name!r}", tensors[name]
        need(type(entry) is list and len(entry) in (len(PLAIN_ENTRY), len(FRAME_ENTRY)), f"{where}: no entry")
        if len(entry) == len(FRAME_ENTRY):
            read_frame_entry(entry, where)
            need(dtype == "U8" and len(shape) == 1, f"{where}: no frame in the JSON header")
        else:
            crcs = integers(entry[0], where, LIMITS["checksum"])
            need(len(crcs) == -(-len(data) // CRC_STEP), f"{where}: crcs")
    need(type(aliases) is dict and list(aliases) == sorted(aliases, key=str), "index: aliases are no map in order")
    for alias, name in aliases.items():
        need(is_name(alias) and alias != "__metadata__" and alias not in tensors, f"index: alias {alias!r}")
        need(type(name) is str and name in tensors, f"index: alias {alias!r} of no tensor")
    need(own is None or (type(own) is str and not is_index(own)), "index: own")
    integer(header_crc, "header_crc", LIMITS["checksum"])
    names = [[name, tensors[name][0], tensors[name][1]] for name in sorted(tensors)]
    content = msgpack.packb([names, dict(sorted(metadata.items()))])
    need(crc32c(content) == header_crc, "JSON header", "checksum")
    return entries, index


def read_file(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every tensor of a model file, by its names and aliases, and the metadata.

    A tensor of a type that section 2 does not have comes as its bytes.
    """
    tensors, metadata = read_container(Path(path).read_bytes())
    if not is_index(metadata.get("codec", "")):
        framed = any(dtype == "U8" and data[:4] == MAGIC for dtype, _, data in tensors.values())
        lost = framed or any(is_index(value) for value in metadata.values())
        need(not lost, "frames but no index: codec convert --reindex makes it")
        return {name: plain(*tensor) for name, tensor in tensors.items()}, metadata
    entries, index = read_index(metadata.pop("codec"), tensors, metadata)
    out = {}
    for name, (dtype, shape, data) in tensors.items():
        entry = entries[name]
        framed = len(entry) == len(FRAME_ENTRY)
        step, crcs = (len(data) or 1, entry[-1:]) if framed else (CRC_STEP, entry[0])
        found = [crc32c(data[at : at + step]) for at in range(0, len(data) or int(framed), step)]
        need(found == crcs, f"tensor {name!r}", "checksum")
        if not framed:
            out[name] = plain(dtype, shape, data)
            continue
        out[name], info = read_frame(data)
        same = [info[key] for key in ("dtype", "shape", "layout", "nnz")] == entry[:4]
        need(same, f"index of {name!r}: not what the frame says")
    if index["own"] is not None:
        metadata["codec"] = index["own"]
    return out | {alias: out[name] for alias, name in index["aliases"].items()}, metadata


def plain(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype not in DTYPES:
        return np.frombuffer(data, np.uint8)
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)
