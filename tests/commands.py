"""What tests of the command line share: a plain model file, running a verb, and what a refusal looks like."""

import json

from click.testing import CliRunner

import codec
from codec.cli import main
from codec.compare import first_difference
from codec.model.container import header_bytes


def write_plain(path, tensors, metadata=None):
    """A plain safetensors file, also of the dtypes that safetensors.numpy does not write."""
    names = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float32": "F32", "float16": "F16", "int64": "I64"}
    header = header_bytes([(n, names[a.dtype.name], a.shape) for n, a in tensors.items()], metadata or {})
    path.write_bytes(header + b"".join(a.tobytes() for a in tensors.values()))
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def facts(*arguments, status=0):
    result = run(*arguments, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def refused(result, status, *words):
    """Status, nothing on stdout, and words that stand on stderr; of a fault in the data exactly one line."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    for word in words:
        assert word in result.stderr
    if status == 1:
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def assert_same(path, tensors, zero="value"):
    with codec.safe_open(path) as model:
        assert sorted(model.keys()) == sorted(tensors)
        for name, a in tensors.items():
            found = model.get_tensor(name)
            assert found.dtype == a.dtype
            assert found.shape == a.shape
            assert first_difference(found, a, zero) is None
