"""What every test run needs: the installed package, with its native module; and small models for the command line."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from once import ONCE


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernels", action="store_true", help="leave out the files that tests/once.py lists")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    listed = collection_path.suffix == ".py" and any(collection_path.stem in files for files in ONCE.values())
    return True if listed and config.getoption("kernels") else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker begins with files of its own, so that what tests of a file share is made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("kernels"):
        terminalreporter.section("left out, as they do not depend on the instruction set (tests/once.py)")
        for reason, files in ONCE.items():
            terminalreporter.write_line(f"{reason}: {', '.join(files)}")


def pytest_configure() -> None:
    # `python -m pytest` puts the checkout first on sys.path, and its folder codec/ hides the package that was built.
    codec = importlib.util.find_spec("codec")
    if codec is None:
        raise pytest.UsageError("codec is not installed here; the way out: pip install '.[test]'")
    places = codec.submodule_search_locations
    finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
    if not any(finder.find_spec("codec._native", places) for finder in finders):
        raise pytest.UsageError(
            f"{codec.origin} has no native module, so this would not test what is installed; "
            "the way out: run `pytest`, not `python -m pytest`, after `pip install .` (or use `pip install -e .`)"
        )
    # `python -c` in a test's subprocess would do the same as `python -m`.
    os.environ["PYTHONSAFEPATH"] = "1"


# Small models for the tests of the command line. What imports codec is imported inside, after the check above.


@pytest.fixture
def tensors():
    random = np.random.default_rng(0)
    w = random.standard_normal((64, 256)).astype(np.float32)
    w[random.random(w.shape) < 0.8] = 0
    w[3, 5] = w[4, 6] = -0.0
    return {
        "w": w,
        "half": w.astype(ml_dtypes.bfloat16),
        "bias": random.standard_normal(64).astype(np.float32),
        "steps": np.array(7, dtype=np.int64),
    }


@pytest.fixture
def plain(tmp_path, tensors):
    from commands import write_plain

    return write_plain(tmp_path / "model.safetensors", tensors, {"format": "pt", "made by": "hand"})


@pytest.fixture
def packed(plain):
    from commands import run

    assert run("encode", plain).exit_code == 0
    return plain.with_name("model.codec.safetensors")


@pytest.fixture
def sharded(tmp_path, tensors):
    from commands import write_plain

    groups = [{"w": tensors["w"], "bias": tensors["bias"]}, {"half": tensors["half"], "steps": tensors["steps"]}]
    weight_map, folder = {}, tmp_path / "model"
    folder.mkdir()
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        write_plain(folder / name, group)
        weight_map |= dict.fromkeys(group, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.fixture
def path(tmp_path):
    """The model file of models.MODEL."""
    from models import MODEL

    from codec.model import save_file

    save_file(MODEL, tmp_path / "model.safetensors", {"author": "someone", "format": "np"})
    return tmp_path / "model.safetensors"
