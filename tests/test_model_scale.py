"""Many tensors, and large ones: what a header takes, and how much memory writing takes."""

import subprocess
import sys

import numpy as np
from models import same

import codec
from codec.model import safe_open, save_file
from codec.model.container import header_bytes

COUNT = 10_000


def header_length(path):
    with open(path, "rb") as file:
        return int.from_bytes(file.read(8), "little")


def test_an_index_adds_little_to_a_header_of_many_names(tmp_path):
    module = "model.layers.{}.block_sparse_moe.experts.{}.long_name_of_a_module.weight"
    names = [module.format(n // 1000, n % 1000) for n in range(COUNT)]
    plain = len(header_bytes([(name, "F32", (2,)) for name in names], {}))
    values = np.arange(2 * COUNT, dtype=np.float32).reshape(COUNT, 2)
    save_file(dict(zip(names, values, strict=True)), tmp_path / "m")
    assert header_length(tmp_path / "m") < 1.15 * plain
    with safe_open(tmp_path / "m") as model:
        assert len(model) == COUNT
        same(model.get_tensor(names[4321]), values[4321])
        assert model.metadata() == {"format": "pt"}


def test_neither_do_packed_and_tied_tensors(tmp_path):
    names = [f"model.layers.{n}.mlp.experts.3.down_proj.weight" for n in range(2000)]
    packed = [codec.encode(np.full((64, 64), n, np.float32), layout="dense", entropy="none") for n in range(20)]
    save_file({name: packed[n % 20] for n, name in enumerate(names)}, tmp_path / "m")
    plain = len(header_bytes([(name, "F32", (64, 64)) for name in names], {}))
    assert header_length(tmp_path / "m") < 1.5 * plain
    with safe_open(tmp_path / "m") as model:
        assert sum(model.info(name).alias_of is not None for name in model) == len(names) - 20


MEMORY = """
import sys
import numpy as np
import codec
from codec.model.container import header_bytes

folder, MiB, each, count = sys.argv[1], 1 << 20, 24, 5
w = np.zeros((each * MiB // 4096, 1024), np.float32)
w[:, ::16] = np.random.default_rng(0).random((len(w), 64))
with open(folder + "/plain.safetensors", "wb") as file:
    tensors = [(f"w{n}", "F32", w.shape) for n in range(count)]
    tensors += [(f"odd{n}", "F8_E8M0", (each * MiB,)) for n in range(count)]
    file.write(header_bytes(tensors, {}))
    for n in range(2 * count):
        file.write(w.tobytes())
        w += w != 0
codec.encode(w[:1024])  # what is made once: threads, tables
def held():  # ru_maxrss would begin with that of the process that started this one
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

base = held()
codec.encode_checkpoint(folder + "/plain.safetensors", folder + "/packed.safetensors")
codec.decode_checkpoint(folder + "/packed.safetensors", folder + "/dense.safetensors")
peak = held()
print((peak - base) / (each * MiB))
"""


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    # A tensor, its frame and what making that needs; all 10 tensors would be 10.
    assert float(done.stdout) < 4
