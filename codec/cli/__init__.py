"""The command line, `codec VERB ...`; `main` is its entry point.

files.py has the verbs between a model and its file, convert.py and prune.py those that write another model, show.py
those that only print, weigh.py those that count and compare.
"""

import click

from codec.cli.convert import convert
from codec.cli.files import decode, encode, verify
from codec.cli.output import Verbs
from codec.cli.prune import prune
from codec.cli.show import config, demo, inspect
from codec.cli.weigh import breakeven, stats

__all__ = ["main"]


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="codec")
def main() -> None:
    """Store pruned model weights in few bytes, and multiply straight from them.

    Files are safetensors files that other tools open too. Exit status: 0 fine, 1 a fault in the data, 2 in the command.
    """


for verb in (prune, encode, decode, inspect, verify, convert, stats, breakeven, config, demo):
    main.add_command(verb)
