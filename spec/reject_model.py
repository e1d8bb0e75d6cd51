"""Model files that a reader must refuse."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from cases import Bad
from decode_model import model_bytes, model_items
from writer_model import Item, compact, container, listing_of, model_file, plain_file

Index = dict[str, Any]


def bad(name: str, rule: str, data: bytes, error: str = "format") -> Bad:
    return Bad(f"model_{name}", rule, data, error, model=True)


def containers() -> Iterator[Bad]:
    """Section 8.1, with two plain tensors of 2 bytes each."""
    listing, data = listing_of({name: Item("U8", [2], bytes([1, 2])) for name in "ab"})
    right = compact(listing)

    def spelled(name: str, rule: str, header: str | bytes) -> Bad:
        return bad(name, rule, container(header, data))

    def more(name: str, rule: str, key: str) -> Bad:
        """With another key in the first tensor's object."""
        return spelled(name, rule, right.replace('"dtype"', f'{key},"dtype"', 1))

    def about(name: str, rule: str, content: bytes = data, **changed: Any) -> Bad:
        return bad(name, rule, container(compact({**listing, "b": listing["b"] | changed}), content))

    yield bad("nothing", "R8.1a", b"")
    yield bad("of_7_bytes", "R8.1a", bytes(7))
    yield bad("header_beyond_file", "R8.1a", struct.pack("<Q", len(right) + 1) + right.encode())
    yield bad("header_length_largest", "R8.1a", struct.pack("<Q", 2**64 - 1) + right.encode())
    yield spelled("space_first", "R8.1b", " " + right)
    yield spelled("byte_order_mark", "R8.1b", "\ufeff" + right)
    yield spelled("no_object", "R8.1b", "[]")
    yield spelled("no_json", "R8.1b", right[:-1])
    yield spelled("no_utf_8", "R8.1b", right.encode().replace(b'"a"', b'"\xff"'))
    yield spelled("lone_surrogate", "R8.1b", right.replace('"a"', '"\\ud800"'))
    yield spelled("object_after", "R8.1b", right + "{}")
    yield more("lone_surrogate_ignored", "R8.1b", '"more":"\\udc00"')
    yield more("nan_ignored", "R8.1b", '"more":NaN')
    yield more("nesting_128", "R8.1b", '"more":' + "[" * 126 + "]" * 126)
    yield spelled("name_twice", "R8.1c", right.replace('"b"', '"a"'))
    yield more("key_twice", "R8.1c", '"dtype":"U8"')
    yield more("ignored_key_twice", "R8.1c", '"more":{"x":1,"x":1}')
    yield bad("metadata_key_twice", "R8.1c", container('{"__metadata__":{"a":"1","a":"1"}}', b""))
    for name, value in (("array", []), ("string", "a"), ("of_numbers", {"a": 1}), ("of_null", {"a": None})):
        yield spelled(f"metadata_{name}", "R8.1d", compact({"__metadata__": value, **listing}))
    yield spelled("name_empty", "R8.1e", right.replace('"b"', '""'))
    yield spelled("name_too_long", "R8.1e", right.replace('"b"', '"' + "x" * 1023 + '\u00e9"'))
    yield spelled("tensor_null", "R8.1f", compact({**listing, "b": None}))
    yield spelled("tensor_array", "R8.1f", compact({**listing, "b": ["U8", [2], [2, 4]]}))
    for key in ("dtype", "shape", "data_offsets"):
        lacking = {k: value for k, value in listing["b"].items() if k != key}
        yield spelled(f"without_{key}", "R8.1f", compact({**listing, "b": lacking}))
    yield about("dtype_number", "R8.1f", dtype=8)
    yield about("shape_number", "R8.1f", shape=2)
    for name, side in (("float", 2.0), ("negative", -2), ("string", "2"), ("boolean", True), ("null", None)):
        yield about(f"shape_{name}", "R8.1f", shape=[2, side])
    yield spelled("shape_exponent", "R8.1f", right.replace("[2]", "[2e0]", 1))
    yield about("shape_above_limit", "R8.1f", data[:2], shape=[0, 2**63], data_offsets=[2, 2])
    yield about("shape_of_many_digits", "R8.1f", data[:2], shape=[0, 10**4000], data_offsets=[2, 2])
    for dtype in ("C128", "I4", "u8", ""):
        yield about(f"dtype_{dtype or 'empty'}", "R8.1g", dtype=dtype)
    yield about("dimensions_33", "R8.1h", shape=[1] * 32 + [2])
    yield about("size_overflow", "R8.1h", data[:2], shape=[0, 2**62, 2], data_offsets=[2, 2])
    yield about("bytes_overflow", "R8.1h", data[:2], dtype="F64", shape=[0, 2**61], data_offsets=[2, 2])
    yield about("offsets_of_three", "R8.1i", data_offsets=[2, 4, 4])
    yield about("offsets_reversed", "R8.1i", shape=[0], data_offsets=[4, 2])
    yield about("shape_too_large", "R8.1i", shape=[3])
    yield about("half_a_byte", "R8.1i", dtype="F4", shape=[3])
    yield about("hole", "R8.1j", data + b"\1", data_offsets=[3, 5])
    yield about("overlap", "R8.1j", data[:3], data_offsets=[1, 3])
    yield about("same_place", "R8.1j", data[:2], data_offsets=[0, 2])
    yield about("no_bytes_inside", "R8.1j", data[:2], shape=[0], data_offsets=[1, 1])
    yield about("no_bytes_beyond", "R8.1j", data[:2], shape=[0], data_offsets=[3, 3])
    yield about("beyond_file", "R8.1j", data[:3])
    yield bad("cut", "R8.1j", model_bytes()[:-1])
    yield bad("byte_after", "R8.1j", model_bytes() + b"\0")


def lost() -> Iterator[Bad]:
    """Section 8.2: frames without an index, and what is left of one."""
    items = model_items()
    frame = items["layer.weight"].data
    yield bad("frames_without_index", "R8.2a", plain_file(items, {"format": "pt"}))
    yield bad("frames_without_metadata", "R8.2a", plain_file(items))
    yield bad("frames_with_own_codec", "R8.2a", plain_file(items, {"codec": "opus"}))
    for name, shape in (("two", [64]), ("four", [1, 2, 32])):
        whole = Item("U8", [*shape, len(frame) // 64], frame)
        yield bad(f"frame_of_{name}_dimensions", "R8.2a", plain_file({"a": whole}))
    yield bad("magic_alone", "R8.2a", plain_file({"a": Item("U8", [2, 4], frame[:8])}))
    yield bad("key_of_index_changed", "R8.2b", model_bytes(header=lambda text: text.replace('"codec"', '"coded"')))
    for name, text in (("start", "had2ZXJzaW9u"), ("rest", "x" * 12 + "AKd0ZW5zb3Jz")):
        yield bad(f"{name}_of_an_index_elsewhere", "R8.2b", plain_file({}, {"other": text}))


def index_text() -> Iterator[Bad]:
    """Rules R8.3a to R8.3e: base64, CRC, version, msgpack."""

    def text(name: str, rule: str, change: Callable[[str], str], error: str = "format") -> Bad:
        return bad(f"index_{name}", rule, model_bytes(text=change), error)

    def packed(name: str, rule: str, change: Callable[[bytes], bytes], error: str = "format") -> Bad:
        return bad(f"index_{name}", rule, model_bytes(packed=change), error)

    def update(name: str, rule: str, error: str = "format", **values: Any) -> Bad:
        return bad(f"index_{name}", rule, model_bytes(index=lambda found: found.update(values)), error)

    yield text("without_base64_padding", "R8.3a", lambda text: padded(text).rstrip("="))
    yield text("with_a_line_break", "R8.3a", lambda text: text[:76] + "\n" + text[76:])
    yield text("with_bits_behind", "R8.3a", odd_bits)
    yield text("in_base64_of_urls", "R8.3a", lambda text: text[:24] + "_" + text[25:])
    yield text("cut", "R8.3b", lambda text: text[:24], "checksum")
    for at in (0, 11, 12, 23, 24):
        yield text(f"character_{at}", "R8.3b", replaced(at), "checksum")
    yield packed("map_of_4", "R8.3c", lambda raw: b"\x84" + raw[1:])
    yield packed("other_first_key", "R8.3c", lambda raw: raw.replace(b"version", b"Version"))
    yield packed("version_not_minimal", "R8.3c", lambda raw: raw[:9] + b"\xcc\0" + raw[10:])
    yield packed("version_cut", "R8.3c", lambda raw: raw[:9] + b"\xcc")
    yield update("version_negative", "R8.3c", version=-1)
    yield update("version_nil", "R8.3c", version=None)
    yield update("version_1", "R8.3d", "version", version=1)
    yield update("version_largest", "R8.3d", "version", version=2**64 - 1)
    # Nothing else of the index is looked at before the version, not even whether it is msgpack.
    yield packed("version_1_and_no_msgpack", "R8.3d", lambda raw: raw[:9] + b"\1\xc1", "version")
    yield packed("byte_after", "R8.3e", lambda raw: raw + b"\xc0")
    yield packed("string_not_minimal", "R8.3e", lambda raw: raw[:10] + b"\xd9\x07" + raw[11:])
    yield bad("index_unknown_key", "R8.3e", model_bytes(index=lambda found: found.update(more=found.pop("own"))))
    yield bad("index_key_last", "R8.3e", model_bytes(index=lambda found: found.update(own=found.pop("own"))))
    yield update("tensors_by_name", "R8.3e", tensors={})
    yield update("aliases_nil", "R8.3e", aliases=None)
    yield update("aliases_by_number", "R8.3e", aliases={1: "step"})
    yield update("own_number", "R8.3e", own=1)
    yield update("header_crc_nil", "R8.3e", header_crc=None)
    yield update("header_crc_of_33_bits", "R8.3e", header_crc=2**32)
    yield update("header_crc", "R8.3m", "checksum", header_crc=0)


def entries() -> Iterator[Bad]:
    """Rules R8.3f to R8.3m. The names in order: buffer, layer.bias, layer.weight (the frame), step."""

    def edited(name: str, rule: str, change: Callable[[list[Any]], Any]) -> Bad:
        return bad(f"index_{name}", rule, model_bytes(index=lambda found: change(found["tensors"])))

    def value(name: str, rule: str, number: int, at: int, new: Any) -> Bad:
        return edited(name, rule, lambda tensors: tensors[number].__setitem__(at, new))

    frame = model_items()["layer.weight"]
    yield edited("tensor_missing", "R8.3f", lambda tensors: tensors.pop())
    yield edited("tensor_too_many", "R8.3f", lambda tensors: tensors.append([[]]))
    yield edited("entry_of_4", "R8.3g", lambda tensors: tensors[2].pop())
    yield edited("entry_of_none", "R8.3g", lambda tensors: tensors[0].pop())
    yield edited("entry_nil", "R8.3g", lambda tensors: tensors.__setitem__(0, None))
    yield value("crcs_number", "R8.3g", 3, 0, 1)
    yield value("crcs_of_strings", "R8.3g", 3, 0, ["1"])
    yield value("nnz_nil", "R8.3g", 2, 3, None)
    yield value("nnz_boolean", "R8.3g", 2, 3, True)
    yield value("crc_array", "R8.3g", 2, 4, [1])
    yield value("dtype_of_no_frame", "R8.3h", 2, 0, "F4")
    yield value("shape_of_33", "R8.3h", 2, 1, [1] * 31 + [7, 12])
    yield value("shape_overflow", "R8.3h", 2, 1, [0, 2**62])
    yield value("layout_unknown", "R8.3h", 2, 2, "coo")
    yield value("nnz_above_size", "R8.3h", 2, 3, 85)
    yield edited("frame_for_a_plain_tensor", "R8.3i", lambda tensors: tensors.__setitem__(1, tensors[2]))
    flat = Item("U8", [2, len(frame.data) // 2], frame.data, frame.draft)
    yield bad("index_of_a_frame_of_two_dimensions", "R8.3i", model_file({"a": flat}, {}))
    yield value("crcs_missing", "R8.3j", 1, 0, [])
    yield edited("crcs_too_many", "R8.3j", lambda tensors: tensors[1][0].append(0))
    yield value("crcs_of_no_bytes", "R8.3j", 0, 0, [0])
    yield value("crcs_of_33_bits", "R8.3j", 1, 0, [2**32])
    yield value("crc_of_33_bits", "R8.3j", 2, 4, 2**32)
    aliases: dict[str, dict[str, Any]] = {
        "empty": {"": "step"},
        "too_long": {"x" * 1025: "step"},
        "of_metadata": {"__metadata__": "step"},
        "of_a_tensor": {"layer.bias": "step"},
        "of_itself": {"step": "step"},
        "of_no_tensor": {"a": "layer"},
        "of_an_alias": {"a": "step", "b": "a"},
        "of_a_later_alias": {"a": "b", "b": "step"},
        "of_nil": {"a": None},
        "of_an_array": {"a": ["step"]},
    }
    for name, names in aliases.items():
        yield bad(f"alias_{name}", "R8.3k", model_bytes(aliases=names))
    swapped = {"b": "step", "a": "step"}
    yield bad("aliases_in_another_order", "R8.3k", model_bytes(index=lambda found: found.update(aliases=swapped)))
    yield bad("own_is_an_index", "R8.3l", model_bytes(own="had2ZXJzaW9u"))
    yield bad("own_is_the_rest_of_an_index", "R8.3l", model_bytes(own="x" * 12 + "AKd0ZW5zb3Jz"))
    for name, old, new in (
        ("metadata", "caf\u00e9", "cafe"),
        ("name", '"step"', '"stop"'),
        ("dtype", '"I64"', '"U64"'),
        ("shape", '"shape":[7]', '"shape":[1,7]'),
    ):
        other = model_bytes(header=lambda text, old=old, new=new: text.replace(old, new))
        yield bad(f"{name}_changed", "R8.3m", other, "checksum")


def data() -> Iterator[Bad]:
    """Rules R8.3n and R8.3o: when a tensor is read."""
    right = model_bytes()
    start = 8 + struct.unpack_from("<Q", right)[0]

    def flipped(at: int) -> bytes:
        return right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]

    yield bad("frame_byte", "R8.3n", flipped(start + 24), "checksum")
    yield bad("last_byte", "R8.3n", flipped(len(right) - 1), "checksum")
    for name, at, value in (("dtype", 0, "F16"), ("shape", 1, [12, 7]), ("layout", 2, "csr"), ("nnz", 3, 1)):
        other = model_bytes(index=lambda found, at=at, value=value: found["tensors"][2].__setitem__(at, value))
        yield bad(f"frame_of_another_{name}", "R8.3o", other)
    items = model_items()
    draft = items["layer.weight"].draft
    assert draft is not None
    for name, broken, error in (
        ("no_bytes", b"", "format"),
        ("another_magic", draft.build(magic=b"\x89CDF"), "format"),
        ("another_version", draft.build(version=1), "version"),
        ("a_damaged_head", draft.build(after=lambda frame, marks: frame.__setitem__(marks["header"], 0)), "checksum"),
    ):
        items["layer.weight"] = Item("U8", [len(broken)], broken, draft)
        yield bad(f"frame_of_{name}", "R8.3o", model_file(items, {}), error)


def replaced(at: int) -> Callable[[str], str]:
    """Another character of base64 at one place."""
    return lambda text: text[:at] + ("B" if text[at] == "A" else "A") + text[at + 1 :]


def padded(text: str) -> str:
    assert text.endswith("=")
    return text


def odd_bits(text: str) -> str:
    """Base64 whose last character carries bits that no byte uses."""
    body = padded(text).rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + text[len(body) :]


def model_bads() -> Iterator[Bad]:
    """Every vector of this file."""
    for group in (containers, lost, index_text, entries, data):
        yield from group()
