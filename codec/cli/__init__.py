"""The command line, `codec VERB ...`; `main` is its entry point.

files.py has the verbs between a model and its file, verify.py the one that checks it, convert.py and prune.py those
that write another model, foreign.py what convert does with files of other tools, show.py those that only print,
stats.py the one that counts, plan.py and breakeven.py those that choose and compare before anything is encoded (plot.py
draws that, metrics.py compares times), bench.py the one that measures products, report.py the one that writes a page.
"""

import click

from codec.cli.bench import bench
from codec.cli.breakeven import breakeven
from codec.cli.convert import convert
from codec.cli.files import decode, encode
from codec.cli.foreign import formats
from codec.cli.output import Verbs
from codec.cli.plan import plan
from codec.cli.prune import prune
from codec.cli.report import report
from codec.cli.show import config, demo, inspect
from codec.cli.stats import stats
from codec.cli.verify import verify

__all__ = ["main"]


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="codec")
def main() -> None:
    """Store pruned model weights in few bytes, and multiply without unpacking them.

    Model files are safetensors files, which other tools open too. The exit status is 0 for success, 1 for a fault in
    the data, 2 for a fault in the command, and 130 after Ctrl-C.
    """


for verb in (
    prune, encode, decode, inspect, verify, convert, formats, stats, plan, breakeven, bench, report, config, demo
):  # fmt: skip
    main.add_command(verb)
