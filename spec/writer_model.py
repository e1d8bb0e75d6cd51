"""A plain writer of model files: section 8 of format.md."""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
from writer import Draft
from writer_coding import BITS, crc32c

# Bits of the types that only safetensors has (8.1).
TYPE_BITS = BITS | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "C64": 64}


@dataclass
class Item:
    """One tensor of the JSON header; ``draft`` is that of the frame, None for a plain tensor."""

    dtype: str
    shape: list[int]
    data: bytes
    draft: Draft | None = None


def frame_item(draft: Draft) -> Item:
    data = draft.build()
    return Item("U8", [len(data)], data, draft)


def entry_of(item: Item) -> list[Any]:
    """Section 8.3."""
    if item.draft:
        header = item.draft.header
        return [header["dtype"], header["shape"], header["layout"], header["nnz"], crc32c(item.data)]
    return [[crc32c(item.data[begin : begin + 2**20]) for begin in range(0, len(item.data), 2**20)]]


def container(header: str | bytes, data: bytes) -> bytes:
    """Section 8.1: a JSON header, padded, and the data."""
    raw = header.encode() if isinstance(header, str) else header
    raw += b" " * (-(8 + len(raw)) % 64)
    return struct.pack("<Q", len(raw)) + raw + data


def listing_of(items: dict[str, Item]) -> tuple[dict[str, Any], bytes]:
    """The JSON header without metadata, and the data, in the order that a writer gives them."""

    def alignment(name: str) -> int:
        """Bits: what needs more comes first."""
        draft = items[name].draft
        return TYPE_BITS[items[name].dtype] if draft is None else 1 if draft.header["layout"] == "context" else 512

    order = sorted(items, key=lambda name: -alignment(name))
    listing, data = {}, b""
    for name in order:
        item = items[name]
        end = len(data) + len(item.data)
        listing[name] = {"dtype": item.dtype, "shape": item.shape, "data_offsets": [len(data), end]}
        data += item.data
    return listing, data


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def plain_file(items: dict[str, Item], metadata: Any = None) -> bytes:
    """A file without an index; metadata None is no ``__metadata__`` at all."""
    listing, data = listing_of(items)
    return container(compact(listing if metadata is None else {"__metadata__": metadata, **listing}), data)


def model_file(
    items: dict[str, Item],
    metadata: dict[str, str],
    *,
    aliases: dict[str, str] | None = None,
    own: str | None = None,
    index: Callable[[dict[str, Any]], None] | None = None,
    packed: Callable[[bytes], bytes] | None = None,
    text: Callable[[str], str] | None = None,
    header: Callable[[str], str] | None = None,
) -> bytes:
    """Section 8; the hooks change the index, its msgpack, its base64 (all before their CRC), and the JSON."""
    listing, data = listing_of(items)
    metadata = dict(sorted({"format": "pt", **metadata}.items()))
    names = sorted(items)
    entries = [entry_of(items[name]) for name in names]
    described = [[name, items[name].dtype, items[name].shape] for name in names]
    content = {"version": 0, "tensors": entries, "aliases": dict(sorted((aliases or {}).items())), "own": own}
    content["header_crc"] = crc32c(msgpack.packb([described, metadata]))
    if index:
        index(content)
    raw = msgpack.packb(content)
    raw = packed(raw) if packed else raw
    encoded = base64.b64encode(raw + struct.pack("<I", crc32c(raw))).decode()
    metadata = dict(sorted({**metadata, "codec": text(encoded) if text else encoded}.items()))
    written = compact({"__metadata__": metadata, **listing})
    return container(header(written) if header else written, data)
