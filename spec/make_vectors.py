"""Makes vectors/ and its manifest from the case files beside it: `python spec/make_vectors.py`.

`--example` prints the examples of format.md, sections 6.5 and 10. While the format's version is 0, vectors are
replaced; from version 1 on one that exists is never written again (write-once), only added to.
"""

import hashlib
import json
import sys
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from cases import Tensor
from context_vectors import context_bads, context_cases
from decode_coding import coding_cases
from decode_layouts import layout_cases
from decode_model import model_cases
from reject_coding import coding_bads
from reject_head import head_cases
from reject_layouts import layout_bads
from reject_model import model_bads
from writer import HEADER, encode, header_of
from writer_coding import code_words, coded_part, key_of, make_code

VERSION = 0
HERE = Path(__file__).parent


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected(tensor: Tensor) -> dict[str, Any]:
    data = tensor.bits.astype(tensor.bits.dtype.newbyteorder("<")).tobytes()
    shape = tensor.bits.shape if tensor.shape is None else tensor.shape
    return {"dtype": tensor.dtype, "shape": list(shape), "sha256": sha256(data)}


@cache
def vectors() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Name -> (bytes, row of the manifest)."""
    made: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def add(name: str, model: bool, data: bytes, **about: Any) -> None:
        assert name not in made, name
        file = name + (".safetensors" if model else ".bin")
        made[name] = data, {"file": file, "since": VERSION, "sha256": sha256(data), **about}

    for case in chain(layout_cases(), context_cases(), coding_cases(), model_cases()):
        model = case.metadata is not None
        expect: dict[str, Any] = {name: expected(tensor) for name, tensor in case.tensors.items()}
        if model:
            expect = {"tensors": expect, "metadata": case.metadata}
        else:
            expect = {**expect[""], "zero": case.tensors[""].zero}
        add(f"decode/{case.name}", model, case.data, section=case.section, expect=expect)
    for bad in chain(head_cases(), layout_bads(), context_bads(), coding_bads(), model_bads()):
        add(f"reject/{bad.name}", bad.model, bad.data, rule=bad.rule, expect={"error": bad.error})
    return made


def write(folder: Path, version: int = VERSION) -> None:
    """All vectors and the manifest; from version 1 on only those that are not there yet."""
    known = folder / "manifest.json"
    manifest = json.loads(known.read_text()) if known.exists() and version > 0 else {}
    made = vectors()
    if version == 0:
        for old in [*folder.glob("decode/*"), *folder.glob("reject/*")]:
            old.unlink()
    for name, (data, row) in made.items():
        if name in manifest:
            continue
        path = folder / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if version == 0 else "xb") as out:
            out.write(data)
        manifest[name] = row
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(manifest[name])}" for name in sorted(manifest))
    known.write_text("{\n" + text + "\n}\n")


def listing(data: bytes, pieces: list[tuple[int, int, str]]) -> list[str]:
    """Lines of offset, bytes and note."""
    lines = []
    for begin, end, note in pieces:
        piece = data[begin:end]
        if not any(piece) and len(piece) > 16:
            lines.append(f"{begin:4}  00 x {len(piece):<43}{note}")
            continue
        for offset in range(0, len(piece), 16):
            line = f"{begin + offset:4}  {piece[offset : offset + 16].hex(' '):<48}{'' if offset else note}"
            lines.append(line.rstrip())
    return lines


def frame_example() -> str:
    """The frame of section 10, annotated."""
    bits = np.array([[0, 0x3FC0, 0], [0xC000, 0, 0x8000]], np.uint16)
    draft = encode(bits, "BF16", "bitmap", params={"order": "rows"})
    marks: dict[str, int] = {}
    frame = draft.build(after=lambda _, found: marks.update(found))
    pieces = [(0, 4, "magic"), (4, 5, "version"), (5, 8, "data_start"), (8, 12, "head_crc")]
    items = list(zip(HEADER, header_of(draft.header), strict=True))
    header = [(msgpack.Packer().pack_array_header(len(items)), f"array of {len(items)}")]
    header += [(msgpack.packb(value), f"{name}: {json.dumps(value)}") for name, value in items]
    at = marks["header"]
    for packed, note in header:
        pieces.append((at, at + len(packed), note))
        at += len(packed)
    table, table_end, start = marks["table"], marks["table_end"], marks["start"]
    mask, values = marks["part0"], marks["part1"]
    for record, name in ((table, "mask"), (table + 8, "values")):
        pieces += [(record, record + 4, f"length of {name}"), (record + 4, record + 8, f"CRC-32C of {name}")]
    pieces += [(table_end, start, "padding")] * (start > table_end)
    pieces += [(mask, mask + 1, "mask: elements 1 and 3"), (mask + 1, values, "padding")]
    pieces += [(values, values + 4, "values: 1.5, -2"), (values + 4, len(frame), "padding and tail")]
    return "\n".join(["```", *listing(frame, pieces), "```"])


def huffman_example() -> str:
    """The part of section 6.5, annotated."""
    values = {"1.0": 0x3F80, "-1.0": 0xBF80, "1.25": 0x3FA0, "0.5": 0x3F00, "1.0 ": 0x3F80, "1.5": 0x3FC0}
    items = list(values.values())
    code = make_code([key_of(item, 16, "float") for item in items], 12, low=1)
    low, zeros, first, words = code["low"], code["zeros"], code["first"], code_words(code["lengths"])
    lines = [f"code: low {low}, zeros {zeros}, first {first}, lengths {code['lengths'].hex(' ')}", ""]
    lines += ["symbol  length  code word"]
    lines += [f"{symbol:<8}{len(words[symbol]):<8}{words[symbol]}" for symbol in sorted(words)]
    lines += ["", "item  value  bits  sign  top bits   raw  zeros  symbol  code word  track  raw field"]
    tracks = ["", "", "", ""]
    for number, (name, item) in enumerate(values.items()):
        key = key_of(item, 16, "float")
        spelled = format(key, "015b")
        cut = spelled[: 15 - low - zeros], spelled[15 - low - zeros : 15 - zeros], spelled[15 - zeros :]
        symbol, raw, sign = (key >> low + zeros) - first, key >> zeros & (1 << low) - 1, item >> 15
        tracks[number % 4] += words[symbol]
        line = f"{number:<6}{name.strip():<7}{item:04X}  {sign:<6}{cut[0]:<11}{cut[1]:<5}{cut[2]:<7}{symbol:<8}"
        lines.append(line + f"{words[symbol]:<11}{number % 4:<7}{sign << low | raw:0{low + 1}b}")
    part = coded_part(items, 16, "float", code)
    pieces = [(0, 4, "n"), (4, 8, "bytes of track 0"), (8, 12, "bytes of track 1"), (12, 16, "bytes of track 2")]
    for number, track in enumerate(tracks):
        numbers = ", ".join(str(item) for item in range(number, len(items), 4))
        pieces.append((16 + number, 17 + number, f"track {number}: items {numbers}: bits {' '.join(track)}"))
    pieces.append((20, len(part), "raw fields, 2 bits each"))
    return "\n".join(["```", *lines, "", *listing(part, pieces), "```"])


if __name__ == "__main__":
    if sys.argv[1:] == ["--example"]:
        print(huffman_example(), frame_example(), sep="\n\n")
    else:
        write(HERE / "vectors")
