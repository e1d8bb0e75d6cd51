"""The verb that checks a model, by itself or against its original: verify."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from codec.cli.output import DataFault, Progress, emit, json_option, quiet_option, source, threads_option
from codec.compare import first_difference, lost_signs
from codec.dtypes import BY_NAME, element_type
from codec.errors import CodecError
from codec.kernels import threadpool_limits
from codec.model import ModelFile, safe_open
from codec.model.carried import Carried
from codec.model.opening import open_model
from codec.units import counted


@click.command()
@click.argument("src", type=source)
@click.option("--against", type=source, help="The original, to compare with bit for bit.")
@click.option(
    "--zero",
    type=click.Choice(["value", "bits"]),
    help="With --against: value: -0.0 and +0.0 are the same; bits: they differ.  [default: what packed tensors record, "
    "else bits]",
)
@threads_option
@quiet_option
@json_option
def verify(src: Path, against: Path | None, zero: str | None, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Check all checksums of SRC and decode it.

    All files of a sharded model are checked, even if some of them cannot be opened. The exit status is 1 if anything is
    damaged or differs from the original.
    """
    if zero is not None and against is None:
        raise click.UsageError("--zero says how to compare, and needs --against")
    broken: dict[str, Exception] = {}
    with (
        open_model(str(src), broken=broken) as model,
        threadpool_limits(threads) if threads else nullcontext(),
    ):
        checks = model.verify(raise_on_error=False).tensors
        faults = {check.name: str(check.error) for check in checks if check.error}
        facts: dict[str, Any] = {
            "source": str(src),
            "tensors": len(checks),
            "checked": sum(check.checked for check in checks),
            "against": str(against) if against else None,
        }
        if against:
            with safe_open(against) as original:
                rules, signs = _compare(model, original, zero, faults, bool(broken), quiet)
            facts |= {"negative_zeros": signs, "compared_under": dict(sorted(rules.items()))}
    listed = [{"file": name, "tensor": None, "fault": str(error)} for name, error in broken.items()]
    listed += [{"file": None, "tensor": name, "fault": fault} for name, fault in faults.items()]
    facts |= {"faults": listed, "ok": not listed}
    emit(facts, lambda: _text(facts), as_json)
    if listed:
        raise DataFault


def _compare(
    model: ModelFile, original: ModelFile, zero: str | None, faults: dict[str, str], partial: bool, quiet: bool
) -> tuple[Counter[str], int]:
    """Add what differs to `faults`; how many tensors were compared under each rule, and how many -0.0 became +0.0."""
    for name in model.keys() + original.keys():
        if name not in original:
            faults.setdefault(name, f"tensor {name!r}: is not in the original")
        elif name not in model and not partial:  # what lies in a broken shard is told once, with that
            faults.setdefault(name, f"tensor {name!r}: is in the original only")
    rules: Counter[str] = Counter()
    signs = 0
    both = [name for name in model if name in original]
    with Progress(sum(original.info(name).dense_nbytes for name in both), "Comparing", quiet) as progress:
        for name in both:
            if name not in faults:
                rule, lost = zero or "bits", 0
                try:
                    rule, fault, lost = _difference(model, original, name, zero)
                except CodecError as error:  # of the original
                    fault = str(error)
                rules[rule] += 1
                signs += lost
                if fault:
                    faults[name] = fault
            progress.advance(original.info(name).dense_nbytes)
    return rules, signs


def _difference(model: ModelFile, original: ModelFile, name: str, zero: str | None) -> tuple[str, str | None, int]:
    """The zero rule of the comparison, what differs first (or None), and how many signs of zeros were lost."""
    info, expected_info = model.info(name), original.info(name)
    found_as, expected_as = (info.dtype, info.shape), (expected_info.dtype, expected_info.shape)
    rule = zero or "bits"  # of tensors stored as themselves
    if found_as != expected_as:
        fault = f"tensor {name!r}: is {_described(*found_as)}, the original {_described(*expected_as)}"
        return rule, fault, 0
    if info.dtype not in BY_NAME:
        return rule, _difference_of_bytes(model.get_stored(name), original.get_stored(name), name), 0
    if info.stored_as == "frame":
        packed = model.get_packed(name)
        rule, found = zero or packed.zero, packed.to_dense()
    else:
        found = model.get_tensor(name)
    expected = original.get_tensor(name)
    at = first_difference(found, expected, rule)
    if at is None:
        return rule, None, lost_signs(found, expected)
    place = [int(i) for i in np.unravel_index(at, info.shape)] if info.shape else []
    values = " where the original has ".join(_shown(a.reshape(-1)[at : at + 1]) for a in (found, expected))
    return rule, f"tensor {name!r}: first differs at {place}: {values} (zero={rule!r})", lost_signs(found, expected)


def _difference_of_bytes(found: Any, expected: Any, name: str) -> str | None:
    """For dtypes that are only copied."""
    assert isinstance(found, Carried)
    assert isinstance(expected, Carried)
    offset = 0
    for one, other in zip(found.pieces(), expected.pieces(), strict=True):
        if one != other:
            at = int(np.argmax(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)))
            return f"tensor {name!r}: first differs at byte {offset + at} of its data"
        offset += len(one)
    return None


def _shown(one: npt.NDArray[Any]) -> str:
    """A value with its bits, as two NaNs look the same."""
    return f"{one[0]} (0x{int(one.view(element_type(one.dtype).unsigned)[0]):x})"


def _described(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"


def _text(facts: dict[str, Any]) -> str:
    lines = [fault["fault"] for fault in facts["faults"]]
    files, tensors = (sum(fault[key] is not None for fault in facts["faults"]) for key in ("file", "tensor"))
    bad = [counted(n, noun) for n, noun in ((files, "file"), (tensors, "tensor")) if n]
    state = f"{' and '.join(bad)} at fault" if bad else "good"
    lines.append(f"{facts['source']}: {counted(facts['tensors'], 'tensor')}, {state}")
    if not facts["checked"] and facts["tensors"]:
        lines.append("This is a plain safetensors file without checksums: damage to its data cannot be found.")
    if facts["against"]:
        words = {"value": "under zero='value' (-0.0 is a zero too)", "bits": "with every bit"}
        rules = ", ".join(f"{counted(n, 'tensor')} {words[rule]}" for rule, n in facts["compared_under"].items())
        signs = f"; {counted(facts['negative_zeros'], 'negative zero')} became +0.0"
        lines.append(f"{'The same' if facts['ok'] else 'Compared'}: {rules or 'no tensor'}{signs}")
    return "\n".join(lines)
