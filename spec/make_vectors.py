"""Makes vectors/ and its manifest from the case files beside it: `python spec/make_vectors.py`.

`--example` prints the annotated frame of format.md section 10. While the format's version is 0, vectors are replaced;
from version 1 on one that exists is never written again (write-once), only added to.
"""

import hashlib
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from decode_cases import decode_cases
from model_cases import model_decode_cases, model_reject_cases
from reject_head import head_cases
from reject_parts import part_cases
from writer import encode

VERSION = 0
HERE = Path(__file__).parent


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def vectors() -> dict[str, tuple[str, bytes, dict[str, Any]]]:
    """Name -> (file, bytes, row of the manifest)."""
    made = {}
    for case in chain(decode_cases(), model_decode_cases()):
        expect: dict[str, Any] = {"tensors": {}} if case.model else {}
        for name, tensor in case.tensors.items():
            about = {"dtype": tensor.dtype, "shape": list(tensor.bits.shape)}
            about["sha256"] = sha256(tensor.bits.astype(tensor.bits.dtype.newbyteorder("<")).tobytes())
            if case.model:
                expect["tensors"][name] = about
            else:
                expect = {**about, "zero": tensor.zero}
        made[f"decode/{case.name}"] = (case.data, case.model, case.section, expect)
    for bad in chain(head_cases(), part_cases(), model_reject_cases()):
        made[f"reject/{bad.name}"] = (bad.data, bad.model, bad.section, {"error": bad.error})
    rows = {}
    for name, (data, model, section, expect) in made.items():
        file = name + (".safetensors" if model else ".bin")
        row = {"file": file, "since": VERSION, "sha256": sha256(data), "section": section, "expect": expect}
        rows[name] = (file, data, row)
    return rows


def write(folder: Path, version: int = VERSION) -> None:
    """All vectors and the manifest; from version 1 on only those that are not there yet."""
    known = folder / "manifest.json"
    manifest = json.loads(known.read_text()) if known.exists() and version > 0 else {}
    made = vectors()
    if version == 0:
        for old in [*folder.glob("decode/*"), *folder.glob("reject/*")]:
            old.unlink()
    for name, (file, data, row) in made.items():
        if name in manifest:
            continue
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if version == 0 else "xb") as out:
            out.write(data)
        manifest[name] = row
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(manifest[name])}" for name in sorted(manifest))
    known.write_text("{\n" + text + "\n}\n")


def example() -> str:
    """The frame of section 10, annotated."""
    draft = encode(
        np.array([[0, 0x3FC0, 0], [0xC000, 0, 0x8000]], np.uint16), "BF16", "bitmap", params={"order": "rows"}
    )
    marks: dict[str, int] = {}
    frame = draft.build(after=lambda _, found: marks.update(found))
    pieces = [(0, 8, "magic"), (8, 12, "version"), (12, 16, "header_length"), (16, 24, "frame_length")]
    pieces += [(24, 28, "head_crc")]
    at = 28
    packer = msgpack.Packer()
    header = [(packer.pack_map_header(len(draft.header)), "map")]
    header += [
        (packer.pack(key) + packer.pack(value), f"{key}: {json.dumps(value)}") for key, value in draft.header.items()
    ]
    for packed, note in header:
        pieces.append((at, at + len(packed), note))
        at += len(packed)
    table, crcs, start = marks["table"], marks["crcs"], marks["start"]
    pieces += [(at, table, "padding")] * (table > at)
    pieces += [(table, table + 8, "offset of mask"), (table + 8, crcs, "offset of values")]
    pieces += [(crcs, crcs + 4, "CRC-32C of mask"), (crcs + 4, crcs + 8, "CRC-32C of values")]
    pieces += [
        (crcs + 8, start, "padding"),
        (start, start + 1, "mask: elements 1 and 3"),
        (start + 1, start + 64, "padding"),
    ]
    pieces += [(start + 64, start + 68, "values: 1.5, -2"), (start + 68, len(frame), "padding and tail")]
    lines = []
    for begin, end, note in pieces:
        data = frame[begin:end]
        if not any(data) and len(data) > 16:
            lines.append(f"{begin:4}  00 x {len(data):<43}{note}")
            continue
        for offset in range(0, len(data), 16):
            line = f"{begin + offset:4}  {data[offset : offset + 16].hex(' '):<48}{'' if offset else note}"
            lines += [line.rstrip()]
    return "```\n" + "\n".join(lines) + "\n```"


if __name__ == "__main__":
    if sys.argv[1:] == ["--example"]:
        print(example())
    else:
        write(HERE / "vectors")
