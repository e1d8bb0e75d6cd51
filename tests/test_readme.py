"""The README's code blocks but its two commands are run, in order, on a real network; the maps of developers hold."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import codec

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MAP = ROOT / "codec" / "README.md"
DOCUMENTS = (README, MAP, ROOT / "native" / "README.md", ROOT / "codec" / "formats" / "README.md")
BLOCK = re.compile(r"(<!-- command: \w+ -->\n)?```(python|sh)\n(.*?)```", re.DOTALL)


def test_code_blocks_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(codec.__file__).parent / "data" / "lenet300_mnist.safetensors", "model.safetensors")
    make_llama("llama")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names: dict[str, object] = {}
    kinds = []
    for command, language, code in BLOCK.findall(README.read_text()):
        kinds.append("command" if command else language)
        if command:
            continue
        if language == "python":
            if not all(map(importlib.util.find_spec, imported(code))):
                continue  # an extra that tests do not bring
            exec(compile(code, "README.md", "exec"), names)
        else:
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                check=True,
                env={**os.environ, "PATH": path},
                capture_output=True,
            )
    assert kinds.count("command") == 2
    assert kinds.count("python") >= 2
    assert kinds.count("sh") >= 1


def imported(code: str) -> set[str]:
    """The packages that a block imports."""
    return {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import)
        for alias in node.names
    }


def make_llama(folder: str) -> None:
    """A pruned model of transformers with random weights, where that is installed."""
    if importlib.util.find_spec("transformers") is None:
        return
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data *= torch.rand(parameter.shape) < (0.2 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)


def imports(file: Path) -> set[str]:
    """Modules and packages at the top of codec/ that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "codec":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("codec."):
            found.add(node.module.split(".")[1])
    return found


def test_imports_are_as_drawn() -> None:
    package = ROOT / "codec"
    drawn = dict(
        line.split(maxsplit=1) for line in MAP.read_text().split("```imports\n")[1].split("```")[0].splitlines()
    )
    for name, needs in drawn.items():
        files = (package / name).rglob("*.py") if (package / name).is_dir() else [package / f"{name}.py"]
        found = set().union(*map(imports, files)) - {name}
        assert found == set(needs.replace("-", "").split()), name
    assert set(drawn) == {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()} - {
        "__init__",
        "__pycache__",
        "data",
    }


def test_links_and_files_named_exist() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document}: {link}"
    package = ROOT / "codec"
    for line in MAP.read_text().split("```\nerrors ")[1].split("```")[0].splitlines()[1:]:
        name = line.split()[0]
        assert (package / f"{name}.py").exists() or (package / name).is_dir(), name


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) < 200
