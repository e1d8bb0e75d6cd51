"""The command line, `codec VERB ...`; `main` is its entry point.

files.py has the verbs between a model and its file, verify.py the one that checks it, convert.py and prune.py those
that write another model, foreign.py what convert does with files of other tools, show.py those that only print,
stats.py the one that counts, plan.py and breakeven.py those that choose and compare before anything is encoded (plot.py
draws that, metrics.py compares times), bench.py the one that measures products, report.py the one that writes a page.
"""

from importlib import import_module

import click

from codec.cli.output import Faults

__all__ = ["VERBS", "main"]

# Each verb, and the module that has it as a function of its name: only the one that is asked for is imported.
VERBS = {
    "prune": "prune", "encode": "files", "decode": "files", "inspect": "show", "verify": "verify", "convert": "convert",
    "formats": "foreign", "stats": "stats", "plan": "plan", "breakeven": "breakeven", "bench": "bench",
    "report": "report", "config": "show", "demo": "show",
}  # fmt: skip


class Verbs(Faults):
    """The group of verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of a model's way."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb by its name."""
        if cmd_name not in VERBS:
            return None
        verb: click.Command = getattr(import_module(f"codec.cli.{VERBS[cmd_name]}"), cmd_name)
        return verb


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="codec")
def main() -> None:
    """Store pruned model weights in few bytes, and multiply without unpacking them.

    Model files are safetensors files, which other tools open too. The exit status is 0 for success, 1 for a fault in
    the data, 2 for a fault in the command, and 130 after Ctrl-C.
    """
