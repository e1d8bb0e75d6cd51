"""Model files that a reader must read."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import Case, Tensor, sample
from writer import encode
from writer_model import TYPE_BITS, Item, compact, container, frame_item, listing_of, model_file, plain_file

NOTE = {"note": "caf\u00e9"}


def plain_item(tensor: Tensor) -> Item:
    shape = tensor.bits.shape if tensor.shape is None else tensor.shape
    return Item(tensor.dtype, list(shape), tensor.bits.tobytes())


def model_tensors() -> dict[str, Tensor]:
    return {
        "layer.bias": Tensor(sample((7,), "F32", 90, seed=600), "F32"),
        "step": Tensor(np.array(12, "<u8"), "I64"),
        "layer.weight": Tensor(sample((7, 12), "BF16", 30, seed=601), "BF16"),
        "buffer": Tensor(np.zeros((0, 2), "<u2"), "F16"),
    }


def model_items() -> dict[str, Item]:
    """One frame and three plain tensors."""
    items = {name: plain_item(tensor) for name, tensor in model_tensors().items()}
    weight = model_tensors()["layer.weight"]
    items["layer.weight"] = frame_item(encode(weight.bits, weight.dtype, "bitmap", params={"order": "rows"}))
    return items


def model_bytes(**hooks: Any) -> bytes:
    """The right file of most cases; the hooks are those of model_file."""
    return model_file(model_items(), NOTE, **hooks)


def rewritten(data: bytes) -> bytes:
    """As another tool may save a file: other order, other positions, other spelling of the JSON."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    body, moved, entries = data[8 + length :], b"", {}
    for name in sorted(header, reverse=True):
        entries[name] = header[name]
        if name != "__metadata__":
            begin, end = header[name]["data_offsets"]
            moved += body[begin:end]
            entries[name] = {"data_offsets": [len(moved) - (end - begin), len(moved)]}
            entries[name] |= {key: value for key, value in header[name].items() if key != "data_offsets"}
    raw = json.dumps(entries, indent=1).encode() + b"\n\t "
    return len(raw).to_bytes(8, "little") + raw + moved


def indexed() -> Iterator[Case]:
    """Files with an index."""

    def case(name: str, section: str, data: bytes, tensors: dict[str, Tensor], **metadata: str) -> Case:
        return Case(f"model{name}", section, data, tensors, {"format": "pt", **metadata})

    tensors = model_tensors()
    yield case("", "8", model_bytes(), tensors, **NOTE)
    yield case("_of_another_tool", "8.1", rewritten(model_bytes()), tensors, **NOTE)
    items = {name: item for name, item in model_items().items() if not item.draft}
    yield case("_without_frames", "8", model_file(items, NOTE), {name: tensors[name] for name in items}, **NOTE)
    yield case("_without_tensors", "8", model_file({}, {}), {})
    tied = {"head.weight": "layer.weight", "a": "step", "\u00e9": "buffer"}
    both = tensors | {alias: tensors[name] for alias, name in tied.items()}
    yield case("_aliases", "8.3", model_bytes(aliases=tied), both, **NOTE)
    for name, own in (("_own_codec", "opus"), ("_own_codec_empty", "")):
        yield case(name, "8.3", model_bytes(own=own), tensors, **NOTE, codec=own)
    # The order of names is by code point: "B" before "a", U+FFFD before U+10000.
    spelled = ["a", "B", "a.b", "a/b", "\u00e9", "\ufffd", "\U00010000", "x" * 1024]
    named = {name: Tensor(np.array([number], "<u2"), "I16") for number, name in enumerate(spelled)}
    named["B"] = tensors["layer.weight"]
    items = {name: plain_item(tensor) for name, tensor in named.items()} | {"B": model_items()["layer.weight"]}
    yield case("_names", "8.3", model_file(items, {}), named)
    # What looks like a frame is none if the index says so.
    magic = Tensor(np.frombuffer(model_items()["layer.weight"].data, np.uint8), "U8")
    yield case("_plain_magic", "8.2", model_file({"a": plain_item(magic)}, {}), {"a": magic})
    more = model_bytes(header=lambda text: text.replace('"shape":[7]', '"shape":[7],"more":[-1.5e3,{"x":null}]'))
    yield case("_extra_keys", "8.1", more, tensors, **NOTE)


def types() -> Iterator[Case]:
    """A plain tensor of 8 elements of every type of safetensors."""
    tensors = {}
    for dtype, bits in TYPE_BITS.items():
        data = np.arange(bits, dtype=np.uint8) % (2 if dtype == "BOOL" else 128)
        width = bits // 8 if dtype not in ("C64", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ") and bits >= 8 else 1
        tensors[dtype] = Tensor(data.view(f"<u{width}"), dtype, shape=(8,))
    items = {name: plain_item(tensor) for name, tensor in tensors.items()}
    yield Case("model_types", "8.1", model_file(items, {}), tensors, {"format": "pt"})
    yield Case("model_plain_types", "8.1", plain_file(items), tensors, {})


def plain() -> Iterator[Case]:
    """Files without an index."""
    tensors = {name: tensor for name, tensor in model_tensors().items() if name != "layer.weight"}
    items = {name: plain_item(tensor) for name, tensor in tensors.items()}

    def case(name: str, data: bytes, metadata: dict[str, str] | None = None, section: str = "8.1") -> Case:
        return Case(f"model_plain_{name}", section, data, tensors, metadata or {})

    yield case("file", plain_file(items))
    listing, data = listing_of(items)
    yield case("metadata_null", container(compact({**listing, "__metadata__": None}), data))
    more = {name: {"stride": [1], "note": {"dtype": 1}, **about} for name, about in listing.items()}
    yield case("extra_keys", container(compact(more), data))
    deep = compact(listing).replace('"dtype"', '"more":' + "[" * 125 + "]" * 125 + ',"dtype"', 1)
    yield case("nesting_127", container(deep, data))
    own = {"codec": "opus", "other": "had2ZXJzaW9v"}
    yield case("own_codec", plain_file(items, own), own, "8.2")
    tensors = {"b": Tensor(np.array([1, 2], "<u2"), "I16"), "d": Tensor(np.array([3], "<u2"), "I16")}
    tensors |= {name: Tensor(np.zeros((0, 3), "<u2"), "F16") for name in "ace"}
    spans = {"a": [0, 0], "b": [0, 4], "c": [4, 4], "d": [4, 6], "e": [6, 6]}
    about = {
        name: {"dtype": tensors[name].dtype, "shape": list(tensors[name].bits.shape), "data_offsets": span}
        for name, span in spans.items()
    }
    yield case("tensors_of_no_bytes", container(compact(about), bytes([1, 0, 2, 0, 3, 0])))
    tensors = {}
    yield case("without_tensors", container("{}", b""))


def model_cases() -> Iterator[Case]:
    for group in (indexed, types, plain):
        yield from group()
