"""What every test run needs: the installed package, with its native module."""

import importlib.util
import os
import sys

import pytest


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
