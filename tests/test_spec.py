"""The format: its page, its vectors, the plain reader in spec/, and codec against all of them."""

import ast
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import head
import make_vectors
import numpy as np
import pytest
import reader
import safetensors.numpy

SPEC = Path(make_vectors.__file__).parent
VECTORS = SPEC / "vectors"
PAGE = (SPEC / "format.md").read_text(encoding="utf-8")
MANIFEST: dict[str, dict[str, Any]] = json.loads((VECTORS / "manifest.json").read_text(encoding="utf-8"))
DECODE = sorted(name for name in MANIFEST if name.startswith("decode/"))
REJECT = sorted(name for name in MANIFEST if name.startswith("reject/"))
# Frames whose every byte is changed: one of each layout, and of each coding.
DAMAGED = [
    f"decode/{name}"
    for name in (
        "dense_odd_tail",
        "csr_zstd",
        "csr_zeros_odd_tail",
        "bitmap_lanes_huffman",
        "huffman_pieces",
        "n_m_2_of_8_20_percent",
    )
]


def table(first: str) -> list[list[str]]:
    """The rows of the page's table whose header row starts with ``first``."""
    found = [match.end() for match in re.finditer(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\|\n", PAGE, re.MULTILINE)]
    assert len(found) == 1, f"{len(found)} tables start with {first}"
    rows = PAGE[found[0] :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def is_model(name: str) -> bool:
    return MANIFEST[name]["file"].endswith(".safetensors")


def check(found: np.ndarray, expect: dict[str, Any]) -> None:
    assert list(found.shape) == expect["shape"]
    assert found.dtype == head.DTYPES[expect["dtype"]]
    assert hashlib.sha256(found.tobytes()).hexdigest() == expect["sha256"]


def test_crc32c_check_value() -> None:
    assert head.crc32c(b"123456789") == 0xE3069283
    assert head.crc32c(b"1234", b"56789") == 0xE3069283


def test_table_of_limits() -> None:
    assert {name: int(value) for name, value, _ in table("limit")} == head.LIMITS


def test_table_of_element_types() -> None:
    rows = {n: (int(bits), kind, None if z == "none" else int(z, 16)) for n, bits, kind, z, _ in table("name")}
    assert rows == head.ELEMENT_TYPES
    assert {name: dtype.itemsize * 8 for name, dtype in head.DTYPES.items()} == {
        name: row[0] for name, row in rows.items()
    }


def test_table_of_prefix() -> None:
    rows = table("offset")
    assert {field: (int(offset), int(size)) for offset, size, field, _ in rows} == head.PREFIX
    assert bytes.fromhex(rows[0][3]) == head.MAGIC


@pytest.mark.parametrize(
    ("first", "keys"),
    [
        ("key", head.HEADER),
        ("stream key", head.STREAM),
        ("code key", head.CODE),
        ("index key", reader.INDEX),
        ("entry key", reader.ENTRY),
    ],
)
def test_table_of_keys(first: str, keys: tuple[str, ...]) -> None:
    assert tuple(row[0] for row in table(first)) == keys


def test_table_of_layouts() -> None:
    rows = re.search(r"^\| layout \| streams \| params \|\n\|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert rows is not None
    found = {}
    for row in rows[1].splitlines():
        name, streams, params = (cell.strip() for cell in row.strip("|").split("|"))
        allowed: dict[str, tuple[Any, ...]] = {}
        for key, values in re.findall(r"(\w+): ([^;]+)", params):
            low, _, high = values.partition("..")
            allowed[key] = tuple(range(int(low), int(high) + 1)) if high else tuple(json.loads(f"[{values}]"))
        found[name] = (tuple(streams.split(", ")), allowed)
    assert found == head.LAYOUTS


def test_example_is_what_the_writer_writes() -> None:
    assert make_vectors.example() in PAGE


def test_spec_imports_nothing_of_codec() -> None:
    for path in SPEC.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            allowed = {p.stem for p in SPEC.glob("*.py")} | {"numpy", "ml_dtypes", "msgpack", "zstandard"}
            assert roots <= allowed | sys.stdlib_module_names, path.name


def test_manifest_is_the_folder() -> None:
    files = {path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*") if path.is_file()}
    assert files == {row["file"] for row in MANIFEST.values()} | {"manifest.json"}
    for row in MANIFEST.values():
        assert hashlib.sha256((VECTORS / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
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
        found = reader.read_file(path)
        assert found.keys() == expect["tensors"].keys()
        for tensor, row in expect["tensors"].items():
            check(found[tensor], row)
        return
    array, info = reader.read_frame(path.read_bytes())
    check(array, expect)
    assert info["zero"] == expect["zero"]


@pytest.mark.parametrize("name", REJECT)
def test_reader_refuses(name: str) -> None:
    path = VECTORS / MANIFEST[name]["file"]
    with pytest.raises(reader.SpecError) as caught:
        reader.read_file(path) if is_model(name) else reader.read_frame(path.read_bytes())
    assert caught.value.reason == MANIFEST[name]["expect"]["error"]


@pytest.mark.parametrize("name", DAMAGED)
def test_reader_finds_every_changed_byte_and_every_cut(name: str) -> None:
    data = (VECTORS / MANIFEST[name]["file"]).read_bytes()
    for at in range(len(data)):
        for wrong in (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], data[:at]):
            with pytest.raises(reader.SpecError):
                reader.read_frame(wrong)


def test_reader_finds_every_changed_byte_of_a_file(tmp_path: Path) -> None:
    data = (VECTORS / MANIFEST["decode/model"]["file"]).read_bytes()
    right = reader.read_file(VECTORS / MANIFEST["decode/model"]["file"])
    path = tmp_path / "model.safetensors"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            found = reader.read_file(path)
        except reader.SpecError:
            continue
        # Only spaces and the spelling of JSON may change without a trace, never what is read.
        assert at < data.index(b"\x89CDCF")
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in right.items()
        }


@pytest.mark.parametrize("name", [name for name in DECODE if is_model(name)])
def test_safetensors_reads(name: str) -> None:
    data = (VECTORS / MANIFEST[name]["file"]).read_bytes()
    assert int.from_bytes(data[:8], "little") % 64 == 56
    found = safetensors.numpy.load(data)
    assert found.keys() == MANIFEST[name]["expect"]["tensors"].keys()
    if "layer.weight" in found:
        array, _ = reader.read_frame(found["layer.weight"].tobytes())
        check(array, MANIFEST[name]["expect"]["tensors"]["layer.weight"])


# codec against the vectors. It is imported in the tests, so that all others run without it.


@pytest.mark.parametrize("name", DECODE)
def test_codec_reads(name: str) -> None:
    import codec

    path, expect = VECTORS / MANIFEST[name]["file"], MANIFEST[name]["expect"]
    if is_model(name):
        found = codec.load_file(path)
        assert found.keys() == expect["tensors"].keys()
        for tensor, row in expect["tensors"].items():
            check(np.asarray(found[tensor]), row)
        return
    check(codec.decode(path.read_bytes()), expect)


@pytest.mark.parametrize("name", REJECT)
def test_codec_refuses(name: str) -> None:
    import codec

    path = VECTORS / MANIFEST[name]["file"]
    errors = {"format": codec.FormatError, "checksum": codec.ChecksumError, "version": codec.VersionError}

    def read() -> None:
        if not is_model(name):
            codec.decode(path.read_bytes())
            return
        with codec.safe_open(path, framework="np") as file:
            file.verify()

    with pytest.raises(codec.FormatError) as caught:  # the base of the other two
        read()
    assert type(caught.value) is errors[MANIFEST[name]["expect"]["error"]]
