"""The format: its page, its vectors, and the plain reader and writer in spec/. codec itself is not used here."""

import ast
import hashlib
import json
import random
import re
import struct
import sys
from pathlib import Path
from typing import Any

import cases
import head
import make_vectors
import numpy as np
import pytest
import reader
import reader_model
import safetensors.numpy
import writer
import writer_coding
import writer_model
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import DECODE, MANIFEST, REJECT, SPEC, VECTORS, check, is_model

PAGE = (SPEC / "format.md").read_text(encoding="utf-8")
# The rules of the page, in its order.
RULES = re.findall(r"^- \*\*(R[\d.]+[a-z])\*\* ", PAGE, re.MULTILINE)
# Frames whose every byte is changed: one of each layout, and of each coding.
DAMAGED = [
    f"decode/{name}"
    for name in (
        "dense_odd_tail",
        "csr_zstd",
        "csr_rans",
        "csr_zeros_odd_tail",
        "bitmap_lanes_huffman",
        "huffman_pieces",
        "relative_fillers_pieces",
        "run_length_odd_tail",
        "n_m_2_of_8_20_percent",
        "blocks_odd_tail",
        "codebook_blocks_columns_groups_of_2",
    )
]


def table(first: str) -> list[list[str]]:
    """The rows of the page's table whose header row starts with ``first``."""
    found = [match.end() for match in re.finditer(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\|\n", PAGE, re.MULTILINE)]
    assert len(found) == 1, f"{len(found)} tables start with {first}"
    rows = PAGE[found[0] :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


# The page -------------------------------------------------------------------------------------------------------------


def test_crc32c_check_value() -> None:
    assert head.crc32c(b"123456789") == 0xE3069283
    assert head.crc32c(b"1234", b"56789") == 0xE3069283
    assert head.crc32c(b"") == 0


def test_table_of_limits() -> None:
    assert {name: int(value) for name, value, _ in table("limit")} == head.LIMITS


def test_table_of_element_types() -> None:
    listed = table("number | name")
    rows = {n: (int(bits), kind, None if z == "none" else int(z, 16)) for _, n, bits, kind, z, _ in listed}
    assert rows == head.ELEMENT_TYPES
    assert [int(number) for number, *_ in listed] == list(range(len(listed)))
    assert tuple(rows) == tuple(head.ELEMENT_TYPES) == writer.DTYPES
    assert {name: dtype.itemsize * 8 for name, dtype in head.DTYPES.items()} == {
        name: row[0] for name, row in rows.items()
    }


def test_table_of_safetensors_types() -> None:
    found = {name: int(bits) for bits, names in table("bits") for name in names.split(", ")}
    assert found == reader_model.TYPE_BITS == writer_model.TYPE_BITS
    for name, bits in found.items():
        data = writer_model.plain_file({"a": writer_model.Item(name, [8], bytes(bits))})
        assert safetensors.deserialize(data) == [("a", {"dtype": name, "shape": [8], "data": bytes(bits)})]


def test_table_of_prefix() -> None:
    rows = table("offset")
    assert {field: (int(offset), int(size)) for offset, size, field, _ in rows} == head.PREFIX
    assert bytes.fromhex(rows[0][3]) == head.MAGIC


@pytest.mark.parametrize(
    ("first", "keys"),
    [
        ("item", head.HEADER),
        ("code item", head.CODE),
        ("rans item", head.COUNTS),
        ("values item", head.CODEBOOK),
        ("index key", reader_model.INDEX),
        ("entry of a frame", reader_model.FRAME_ENTRY),
        ("entry of a plain tensor", reader_model.PLAIN_ENTRY),
    ],
)
def test_table_of_keys(first: str, keys: tuple[str, ...]) -> None:
    assert tuple(row[0] for row in table(first)) == keys


def test_table_of_layouts() -> None:
    found = {}
    for place, (number, name, streams, params) in enumerate(table("number | layout")):
        assert int(number) == place
        allowed: dict[str, tuple[Any, ...] | None] = {}
        for key, values in re.findall(r"(\w+): ([^;]+)", params):
            low, _, high = values.partition("..")
            if values == "see 5.8":
                allowed[key] = None
            else:
                allowed[key] = tuple(range(int(low), int(high) + 1)) if high else tuple(json.loads(f"[{values}]"))
        found[name] = (tuple(streams.split(", ")), allowed)
    assert found == head.LAYOUTS
    assert tuple(found) == tuple(head.LAYOUTS) == writer.LAYOUTS


def test_numbers_of_codings() -> None:
    found = re.findall(r"^- (\d), `(\w+)`: ", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in found] == [0, 1, 2, 3]
    assert tuple(name for _, name in found) == head.CODINGS == writer.CODINGS


def test_table_of_default_segments() -> None:
    for rows, cols, segment in table("rows"):
        assert list(writer.default_segment(int(rows), int(cols))) == json.loads(segment)


@given(st.integers(1, 2**24), st.integers(1, 2**24))
def test_default_segments_are_segments(rows: int, cols: int) -> None:
    h, w = segment = writer.default_segment(rows, cols)
    assert head.read_segment([w] if w < cols else h % rows, rows, cols) == segment


def test_start_of_an_index() -> None:
    assert "".join(reader_model.START) in writer_model.model_file({}, {}).decode()
    assert all(f"`{text}`" in PAGE for text in reader_model.START)


def test_examples_are_what_the_writer_writes() -> None:
    assert make_vectors.frame_example() in PAGE
    assert make_vectors.huffman_example() in PAGE


def test_every_rule_has_a_vector() -> None:
    assert len(RULES) == len(set(RULES))
    assert {MANIFEST[name]["rule"] for name in REJECT} == set(RULES)


def test_spec_imports_nothing_of_codec() -> None:
    allowed = {path.stem for path in SPEC.glob("*.py")} | {"numpy", "ml_dtypes", "msgpack", "zstandard"}
    for path in SPEC.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            assert roots <= allowed | sys.stdlib_module_names, path.name
            # Reader and writer are independent of each other.
            other = {"reader": "writer", "head": "writer", "writer": "reader"}.get(path.stem.split("_")[0])
            assert other is None or not any(root.startswith((other, "cases")) for root in roots), path.name


# The vectors ----------------------------------------------------------------------------------------------------------


def test_manifest_is_the_folder() -> None:
    files = {path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*") if path.is_file()}
    assert files == {row["file"] for row in MANIFEST.values()} | {"manifest.json"}
    for name, row in MANIFEST.items():
        assert hashlib.sha256((VECTORS / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
        if name in DECODE:
            assert re.search(rf"^###? {re.escape(row['section'])}[. ]", PAGE, re.MULTILINE), row["section"]


def test_vectors_are_reproduced(tmp_path: Path) -> None:
    make_vectors.write(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {path.relative_to(VECTORS): path.read_bytes() for path in VECTORS.rglob("*") if path.is_file()}


def test_vectors_are_write_once_from_version_1(tmp_path: Path) -> None:
    make_vectors.write(tmp_path)
    kept, gone = tmp_path / MANIFEST[DECODE[0]]["file"], tmp_path / MANIFEST[DECODE[1]]["file"]
    kept.write_bytes(b"released")
    rows = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    del rows[DECODE[1]]
    (tmp_path / "manifest.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(FileExistsError):
        make_vectors.write(tmp_path, version=1)
    gone.unlink()
    make_vectors.write(tmp_path, version=1)
    assert kept.read_bytes() == b"released"
    assert gone.read_bytes() == (VECTORS / MANIFEST[DECODE[1]]["file"]).read_bytes()


@pytest.mark.parametrize("name", DECODE)
def test_reader_reads(name: str) -> None:
    path, expect = VECTORS / MANIFEST[name]["file"], MANIFEST[name]["expect"]
    if is_model(name):
        found, metadata = reader_model.read_file(path)
        assert found.keys() == expect["tensors"].keys()
        for tensor, row in expect["tensors"].items():
            check(found[tensor], row)
        assert metadata == expect["metadata"]
        return
    array, info = reader.read_frame(path.read_bytes())
    check(array, expect)
    assert info["zero"] == expect["zero"]


@pytest.mark.parametrize("name", REJECT)
def test_reader_refuses(name: str) -> None:
    path = VECTORS / MANIFEST[name]["file"]
    with pytest.raises(reader.SpecError) as caught:
        reader_model.read_file(path) if is_model(name) else reader.read_frame(path.read_bytes())
    assert caught.value.reason == MANIFEST[name]["expect"]["error"]


@pytest.mark.parametrize("name", [name for name in DECODE if is_model(name)])
def test_safetensors_reads(name: str) -> None:
    data = (VECTORS / MANIFEST[name]["file"]).read_bytes()
    expect = MANIFEST[name]["expect"]["tensors"]
    found = {tensor: row["data"] for tensor, row in safetensors.deserialize(data)}
    assert found.keys() <= expect.keys()
    for tensor, content in found.items():
        if content[:4] == head.MAGIC and expect[tensor]["dtype"] != "U8":
            array, _ = reader.read_frame(bytes(content))
            content = array.tobytes()
        assert hashlib.sha256(content).hexdigest() == expect[tensor]["sha256"]


def test_model_files_are_aligned() -> None:
    data = (VECTORS / MANIFEST["decode/model"]["file"]).read_bytes()
    assert int.from_bytes(data[:8], "little") % 64 == 56


# Reader and writer ----------------------------------------------------------------------------------------------------


@st.composite
def drafts(draw: st.DrawFn) -> tuple[np.ndarray, str, writer.Draft]:
    """A small tensor's bits after the zero rule, its type, and a frame of it in any layout, codings and segments."""
    dtype = draw(st.sampled_from(sorted(writer_coding.BITS)))
    rows, cols, row_dims = draw(st.integers(0, 70)), draw(st.integers(0, 40)), draw(st.integers(0, 2))
    percent, seed = draw(st.sampled_from([0, 20, 60, 100])), draw(st.integers(0, 2**32))
    bits = cases.sample((rows, cols), dtype, percent, seed)
    sign = writer_coding.negative_zero(dtype)
    if sign and draw(st.booleans()):
        bits[:, ::3] = np.where(bits[:, ::3] == 0, sign, bits[:, ::3])
    height, width = [(1, rows * cols), (rows, cols), (rows * cols, 1)][row_dims]
    segment = None
    if rows * cols:
        pieces = width > 1 and draw(st.booleans())
        segment = (1, draw(st.integers(1, width - 1))) if pieces else (draw(st.integers(1, height)), width)
    variant = draw(st.sampled_from(sorted(cases.VARIANTS)))
    layout, params = cases.VARIANTS[variant]
    if "index" in params:
        params = params | {"index": draw(st.sampled_from([16, 32] if rows * cols > 256 else [8, 16, 32]))}
    codings = {
        name: draw(st.sampled_from(head.CODINGS))
        for name in [*head.LAYOUTS[layout][0], "labels"]
        if not (variant == "blocks_columns" and name == "columns")
    }
    zero = draw(st.sampled_from(["value", "bits"]))
    book = None
    if zero == "value" and draw(st.booleans()) and len(np.unique(bits)) < 200 and row_dims == 1:
        plain = np.where(bits == (sign or 0), 0, bits)
        group_rows = draw(st.integers(0, max(0, rows - 1))) if rows * cols else 0
        book = cases.book_of(plain, 8, group_rows, zero=True)
        book = book if book[2] or not rows * cols else None
    given_options: dict[str, Any] = {"segment": segment, "row_dims": row_dims, "zero": zero, "book": book}
    draft = writer.encode(bits, dtype, layout, params=params, codings=codings, **given_options)
    return np.where((zero == "value") & (bits == (sign or 0)), 0, bits), dtype, draft


@given(drafts())
@settings(deadline=None)
def test_reader_reads_what_the_writer_writes(made: tuple[np.ndarray, str, writer.Draft]) -> None:
    bits, dtype, draft = made
    array, info = reader.read_frame(draft.build())
    assert info == draft.header
    assert array.tobytes() == bits.astype(f"<u{writer_coding.BITS[dtype] // 8}").tobytes()


@given(drafts(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_reader_refuses_or_reads_every_mutant(made: tuple[np.ndarray, str, writer.Draft], rng: random.Random) -> None:
    """Some bits of the parts changed, with right CRCs: a tensor of the same shape, or SpecError of class format."""
    bits, _, draft = made
    for stream in draft.parts:
        for number, part in enumerate(stream):
            data = bytearray(part)
            for _ in range(rng.choice([0, 0, 1, 3]) if data else 0):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            stream[number] = bytes(data)
    assert read(draft.build()) in ("format", bits.shape)


def read(frame: bytes) -> tuple[int, ...] | str:
    """The shape of the tensor, or the class of error."""
    try:
        return reader.read_frame(frame)[0].shape
    except reader.SpecError as error:
        return error.reason


def data_start(frame: bytes | bytearray) -> int:
    """Where the first part begins (section 4.1)."""
    return int.from_bytes(frame[5:8], "little")


def repaired(frame: bytearray) -> bytes:
    """The frame with the CRC of the head made right, where there is a head."""
    start = data_start(frame)
    if start <= len(frame):
        struct.pack_into("<I", frame, 8, writer_coding.crc32c(bytes(frame[:8] + frame[12:start])))
    return bytes(frame)


@given(drafts(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_reader_refuses_every_mutant_of_a_head(made: tuple[np.ndarray, str, writer.Draft], rng: random.Random) -> None:
    frame = bytearray(made[2].build())
    start = data_start(frame)
    for _ in range(rng.choice([1, 2])):
        frame[rng.randrange(4, start)] ^= 1 << rng.randrange(8)
    # Some items, such as shape or negative_zeros, may have other right values.
    assert read(repaired(frame)) is not None


@pytest.mark.parametrize("name", DAMAGED)
def test_reader_finds_every_changed_byte_and_every_cut(name: str) -> None:
    data = (VECTORS / MANIFEST[name]["file"]).read_bytes()
    for at in range(len(data)):
        for wrong in (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], data[:at]):
            with pytest.raises(reader.SpecError):
                reader.read_frame(wrong)


@pytest.mark.parametrize("name", ["model", "model_without_frames", "model_aliases"])
def test_reader_finds_every_changed_byte_of_a_file(name: str, tmp_path: Path) -> None:
    source = VECTORS / MANIFEST[f"decode/{name}"]["file"]
    data, right = source.read_bytes(), reader_model.read_file(source)
    path = tmp_path / "model.safetensors"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            found = reader_model.read_file(path)
        except reader.SpecError:
            continue
        # Only spaces and the spelling of JSON may change without a trace, never what is read.
        assert at < 8 + int.from_bytes(data[:8], "little")
        assert found[1] == right[1]
        assert {name: array.tobytes() for name, array in found[0].items()} == {
            name: array.tobytes() for name, array in right[0].items()
        }


def test_limit_of_a_header() -> None:
    for extra, refused in ((0, False), (1, True)):
        draft = cases.base()
        draft.header["params"] = {"order": b""}
        draft.header["params"] = {"order": bytes(head.LIMITS["header"] - len(draft.packed()) - 3 + extra)}
        assert len(draft.packed()) == head.LIMITS["header"] + extra
        with pytest.raises(reader.SpecError, match="no msgpack" if refused else "order"):
            reader.read_frame(draft.build())


def test_plain_tensors_have_a_crc_for_each_mib(tmp_path: Path) -> None:
    data = np.arange(2**20 + 8, dtype=np.uint8)
    path = tmp_path / "model.safetensors"
    path.write_bytes(writer_model.model_file({"a": writer_model.Item("U8", [len(data)], data.tobytes())}, {}))
    assert reader_model.read_file(path)[0]["a"].tobytes() == data.tobytes()
    for at in (0, 2**20, len(data) - 1):
        whole = bytearray(path.read_bytes())
        whole[at - len(data)] ^= 1
        (tmp_path / "wrong.safetensors").write_bytes(whole)
        with pytest.raises(reader.SpecError) as caught:
            reader_model.read_file(tmp_path / "wrong.safetensors")
        assert caught.value.reason == "checksum"
