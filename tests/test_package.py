"""The package as a whole: import order, what is public and documented, types, and what must not be in it."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import codec
from codec import _native

ROOT = Path(__file__).parents[1]
PACKAGE = Path(codec.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
# Rooms and modules that need an extra to be imported, and what it brings.
EXTRAS = {
    "codec.torch": ("torch",),
    "codec.hf": ("torch", "transformers"),
    "codec.formats.numcodecs": ("numcodecs",),
    "codec.formats.zarr": ("zarr",),
}
ABSENT = tuple(f"{name}." for name, needs in EXTRAS.items() if not all(map(importlib.util.find_spec, needs)))
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(codec.__path__, "codec.")
    if name != "codec._native" and not f"{name}.".startswith(ABSENT)
)
# Heavy, or an extra: only those who use them import them.
LATE = {"ai_edge_litert", "click", "flatbuffers", "matplotlib", "numcodecs", "onnx", "scipy", "torch"}
LATE |= {"plotly", "rich", "transformers", "zarr"}


def the_path() -> list[str]:
    """Modules and packages of codec/ in the order that codec/README.md draws: from an array to a file and back."""
    drawn = (ROOT / "codec" / "README.md").read_text(encoding="utf-8").split("in import order")[1].split("```")[1]
    return [line.split()[0].rstrip("/") for line in drawn.strip().splitlines()]


def imports(path: Path) -> Iterator[str]:
    """Modules of codec that a file imports, dotted below codec; not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unused = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unused:
            continue
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "codec" for alias in node.names), (
                f"{path.name}: from codec import"
            )
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            if node.module == "codec":
                yield from (alias.name for alias in node.names)
            elif (node.module or "").startswith("codec."):
                yield str(node.module).removeprefix("codec.")


def test_the_map_draws_every_module() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    drawn = the_path()
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == files | packages


def test_modules_import_only_from_those_before_them() -> None:
    place = {name: number for number, name in enumerate(the_path())}
    for path in SOURCES:
        inside = path.relative_to(PACKAGE).with_suffix("").parts
        if inside == ("__init__",):
            continue
        for name in imports(path):
            root = name.split(".")[0]
            if root == "_native":  # through kernels, which selects the instruction set
                assert place["kernels"] <= place[inside[0]], f"{path.name} imports {name}"
            elif root != inside[0]:
                assert place[root] < place[inside[0]], f"{path.name} imports {name}, which comes later"


def test_packages_have_no_cycles() -> None:
    edges: dict[str, set[str]] = {}
    for path in SOURCES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        edges[name] = set(imports(path)) - {name}
    done: list[str] = []
    while len(done) < len(edges):
        ready = [name for name, needs in edges.items() if name not in done and needs & edges.keys() <= set(done)]
        assert ready, f"a cycle among {sorted(edges.keys() - set(done))}"
        done += ready


def test_layouts_know_nothing_of_each_other() -> None:
    for path in (PACKAGE / "layouts").glob("*.py"):
        if path.stem not in ("__init__", "base", "gaps"):
            known = {name for name in imports(path) if name.startswith("layouts")}
            assert known - {"layouts.gaps"} == {"layouts.base"}, path.name  # what several of them have in common


def test_importing_codec_imports_nothing_late() -> None:
    code = "import sys, codec; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not LATE & set(done.stdout.split())


# What tests and other tools rely on.
PUBLIC = {
    *("ArgumentError", "ChecksumError", "CodecError", "FormatError", "PackedTensor", "TensorStats", "VersionError"),
    *("decode", "dumps", "encode", "encoded_nbytes", "linear", "load_file", "loads", "matmul", "matvec", "prune"),
    *("BreakEven", "break_even", "safe_open", "save_file", "tensor_stats", "threadpool_limits"),
    *("load", "save", "encode_checkpoint", "decode_checkpoint", "conv2d"),
}
OF_A_TENSOR = {
    *("shape", "dtype", "ndim", "size", "nnz", "nbytes", "dense_nbytes", "density", "sparsity", "ratio", "layout"),
    *("params", "parts", "negative_zeros", "T", "to_dense", "toarray", "to_layout", "to_scipy", "to_torch"),
    *("from_scipy", "from_torch"),
}


def test_public_names() -> None:
    assert set(codec.__all__) >= PUBLIC
    assert codec.__all__ == sorted(codec.__all__)
    for name in codec.__all__:
        assert inspect.getdoc(getattr(codec, name)), name
    for name in OF_A_TENSOR:
        assert inspect.getdoc(getattr(codec.PackedTensor, name)), name
    assert re.fullmatch(r"\d+\.\d+\.\d+", codec.__version__)


@pytest.mark.parametrize("name", [name for name in codec.__all__ if inspect.isfunction(getattr(codec, name))])
def test_docstrings_name_the_parameters(name: str) -> None:
    function = getattr(codec, name)
    text = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            assert re.search(rf"\b{parameter.name}\b", text), f"{name} does not say what {parameter.name} is"


def public_callables() -> dict[str, Any]:
    """What the lists of public names hold, with the methods of its classes."""
    found: dict[str, Any] = {}
    for name in ("codec", *MODULES):
        module = importlib.import_module(name)
        for key in getattr(module, "__all__", ()):
            thing = getattr(module, key)
            if not inspect.isclass(thing) and not inspect.isfunction(thing):
                continue
            members = vars(thing).items() if inspect.isclass(thing) else ()
            if not (members and issubclass(thing, Exception)):  # Python itself tells nothing of exceptions
                found[f"{name}.{key}"] = thing
            found |= {f"{name}.{key}.{own}": f for own, f in members if inspect.isfunction(f) and own[0] != "_"}
    return found


def test_help_shows_signatures_that_can_be_read() -> None:
    """help() writes out what an annotation's alias stands for, which of NumPy's is half a page."""
    found = public_callables()
    assert {"codec.encode", "codec.prune.masks", "codec.model.naming", "codec.PackedTensor.to_dense"} <= found.keys()
    for name, thing in found.items():
        shown = str(inspect.signature(thing))
        assert "numpy._typing" not in shown, name
        assert len(shown) <= 400, f"{name}: {len(shown)} characters"


@pytest.mark.parametrize("name", ["codec", *MODULES])
def test_modules_and_their_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    names: dict[str, Any] = {**{key: getattr(codec, key) for key in codec.__all__}, "codec": codec, "np": np}
    result = doctest.testmod(module, extraglobs=names)
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_and_classes_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{key}"


def test_stub_names_what_the_native_module_has() -> None:
    """Names only; signatures are compared by stubtest (see .ci/run)."""
    stub = ast.parse((PACKAGE / "_native.pyi").read_text(encoding="utf-8"))
    assert members(stub.body) == native_members(_native)
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            assert members(node.body) == native_members(getattr(_native, node.name)), node.name


def members(body: list[ast.stmt]) -> set[str]:
    found = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {name for name in found if not name.startswith("_")}


def native_members(thing: ModuleType | type) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_native.pyi").exists()


def test_no_paths_of_a_machine() -> None:
    """A path that exists on one machine only does not belong into a file that others get."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.:/<~-])/(root|home|Users|work|mnt|opt)/\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found = pattern.search(text)
        assert found is None, f"{name}: {found and text[max(0, found.start() - 30) : found.end() + 30]!r}"


def test_source_code_that_hides_the_package_says_so(tmp_path: Path) -> None:
    """In a fresh clone the folder codec/ comes first on the path, and has no native module."""
    shutil.copytree(PACKAGE, tmp_path / "codec", ignore=shutil.ignore_patterns("_native*.so", "_native*.pyd", "data"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, "-S", "-c", "import sys; sys.path += sys.argv[1:]; import codec", *sys.path[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: the folder codec in ")
    assert "start Python in another folder, or run `pip install -e .`" in last
    assert "circular" not in done.stderr


@pytest.mark.parametrize(("room", "library"), [("torch", "torch"), ("hf", "transformers")])
def test_an_extra_that_is_missing_is_named(room: str, library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None\nimport codec.{room}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"pip install 'codec[{room}]'" in done.stderr
