"""Model files: those that a reader must read, and those that it must refuse."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from decode_cases import Case, Tensor, sample
from reject_head import Bad
from writer import Draft, encode, model_file


def model_tensors() -> dict[str, Tensor]:
    return {
        "layer.bias": Tensor(sample((7,), "F32", 90, seed=600), "F32"),
        "step": Tensor(np.array(12, "<u8"), "I64"),
        "layer.weight": Tensor(sample((7, 12), "BF16", 30, seed=601), "BF16"),
        "buffer": Tensor(np.zeros((0, 2), "<u2"), "F16"),
    }


def model_bytes(only: set[str] | None = None, **hooks: Any) -> bytes:
    """One frame and three tensors stored as themselves; the hooks are those of model_file."""
    tensors: dict[str, tuple[str, list[int], bytes, Draft | None]] = {}
    for name, tensor in model_tensors().items():
        if only is not None and name not in only:
            continue
        draft = (
            encode(tensor.bits, tensor.dtype, "bitmap", params={"order": "rows"}) if name == "layer.weight" else None
        )
        data = draft.build() if draft else tensor.bits.tobytes()
        tensors[name] = (
            ("U8", [len(data)], data, draft) if draft else (tensor.dtype, list(tensor.bits.shape), data, None)
        )
    return model_file(tensors, {"note": "caf\u00e9"}, **hooks)


def model_decode_cases() -> Iterator[Case]:
    """Files that a reader must read."""
    yield Case("model", "8", model_bytes(), model_tensors(), model=True)
    plain = {name: tensor for name, tensor in model_tensors().items() if name != "layer.weight"}
    yield Case("model_without_frames", "8", model_bytes(only=set(plain)), plain, model=True)


def model_reject_cases() -> Iterator[Bad]:
    """Files that a reader must refuse."""

    def bad(name: str, section: str, error: str, data: bytes) -> Bad:
        return Bad(f"model_{name}", section, error, data, model=True)

    def entry(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
        return lambda index: index["tensors"][name].update(values)

    right = model_bytes()
    start = 8 + struct.unpack_from("<Q", right)[0]
    yield bad(
        "frame_byte", "8.3", "checksum", right[: start + 24] + bytes([right[start + 24] ^ 1]) + right[start + 25 :]
    )
    yield bad("last_byte", "8.3", "checksum", right[:-1] + bytes([right[-1] ^ 1]))
    yield bad("cut", "8.1", "format", right[:-1])
    yield bad("byte_after", "8.1", "format", right + b"\0")
    yield bad("metadata_changed", "8.3", "checksum", model_bytes(header=lambda text: text.replace("caf\u00e9", "cafe")))
    yield bad("name_changed", "8.3", "format", model_bytes(header=lambda text: text.replace('"step"', '"stop"')))
    yield bad(
        "shape_changed",
        "8.3",
        "format",
        model_bytes(header=lambda text: text.replace('"shape":[7]', '"shape":[1,7]')),
    )
    yield bad(
        "key_twice", "8.1", "format", model_bytes(header=lambda text: text[:-1] + "," + text[text.index('"step"') :])
    )
    yield bad("index_version_1", "8.3", "version", model_bytes(index=lambda index: index.update(version=1)))
    yield bad("index_unknown_key", "8.3", "format", model_bytes(index=lambda index: index.update(more=1)))
    yield bad("index_tensor_missing", "8.3", "format", model_bytes(index=lambda index: index["tensors"].pop("step")))
    yield bad("index_shape", "8.3", "format", model_bytes(index=entry("layer.weight", shape=[12, 7])))
    yield bad("index_dtype", "8.3", "format", model_bytes(index=entry("layer.weight", dtype="F16")))
    yield bad("index_nnz", "8.3", "format", model_bytes(index=entry("layer.weight", nnz=1)))
    yield bad("index_layout", "8.3", "format", model_bytes(index=entry("layer.weight", layout="csr")))
    yield bad("index_nbytes", "8.3", "format", model_bytes(index=entry("layer.bias", nbytes=24)))
    yield bad("index_crcs_missing", "8.3", "format", model_bytes(index=entry("layer.bias", crcs=[])))
    yield bad("index_header_crc", "8.3", "checksum", model_bytes(index=lambda index: index.update(header_crc=0)))
    yield bad("base64_without_padding", "8.3", "format", model_bytes(index=padded, text=lambda text: text.rstrip("=")))
    yield bad("base64_line_break", "8.3", "format", model_bytes(text=lambda text: text[:76] + "\n" + text[76:]))
    yield bad("base64_bits_after", "8.3", "format", model_bytes(index=padded, text=odd_bits))
    yield bad("index_empty", "8.3", "format", model_bytes(text=lambda text: ""))
    yield bad("index_crc", "8.3", "checksum", model_bytes(text=lambda text: "AAAA" + text[4:]))
    yield bad(
        "frames_without_index", "8.2", "format", model_bytes(header=lambda text: text.replace('"codec"', '"other"'))
    )


def padded(index: dict[str, Any]) -> None:
    """Nothing: the index of the right file already ends in padding (odd_bits would fail otherwise)."""


def odd_bits(text: str) -> str:
    """Base64 whose last character carries bits that no byte uses."""
    body = text.rstrip("=")
    assert body != text
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + text[len(body) :]
