"""What runs here: versions, instruction set, threads."""

import importlib.metadata
import platform
from typing import Any

from codec import kernels

DEPENDENCIES = ("numpy", "ml_dtypes", "safetensors", "msgpack", "zstandard", "bitarray", "click", "rich")


def configuration() -> dict[str, Any]:
    """Versions of codec, Python and codec's dependencies, the platform, and what `codec.kernels.info` says."""
    return {
        "codec": importlib.metadata.version("codec"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **kernels.info(),
        "dependencies": {name: importlib.metadata.version(name) for name in DEPENDENCIES},
    }


def configuration_text() -> str:
    """The configuration, one fact a line."""
    facts = configuration()
    versions = facts.pop("dependencies")
    return "\n".join(f"{k:<12}{', '.join(v) if isinstance(v, list) else v}" for k, v in {**facts, **versions}.items())


def show_config() -> None:
    """Print what a bug report needs: versions, the instruction set in use, those built and available, and threads."""
    print(configuration_text())
