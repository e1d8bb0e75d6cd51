"""The verb that writes a model's report as one page: report."""

from pathlib import Path
from typing import Any

import click

from codec.cli.output import (
    Progress,
    emit,
    force_option,
    json_option,
    quiet_option,
    refuse_overwrite,
    source,
    target_file,
)
from codec.cli.table import safe
from codec.model import safe_open
from codec.report import report as write_report
from codec.units import size


@click.command()
@click.argument("src", type=source)
@click.option("-o", "--output", type=target_file, required=True, help="The page to write.")
@force_option
@quiet_option
@json_option
def report(src: Path, output: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Write a report on SRC as one offline page.

    SRC is a model as for codec inspect. The page says what its zeros are worth, and needs no network. It has advice in
    words, curves, a table of all tensors that sorts and filters, maps of their density, and predictions for other
    sparsities; with a profile of this machine (codec config --measure) also times. It needs the extra codec[report].
    """
    refuse_overwrite([output], force)
    with safe_open(src) as model:
        sizes = {name: model.info(name).dense_nbytes for name in model}
    with Progress(sum(sizes.values()), "Counting", quiet) as bar:
        facts = write_report(src, output, progress=lambda name, _: bar.advance(sizes[name]))
    told: dict[str, Any] = {
        "source": str(src),
        "output": str(output),
        "file_bytes": output.stat().st_size,
        "advice": facts["advice"],
    }
    emit(told, lambda: "\n".join([*map(safe, facts["advice"]), "", f"{output}: {size(told['file_bytes'])}"]), as_json)
