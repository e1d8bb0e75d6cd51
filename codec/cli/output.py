"""What every verb shares: options, the two streams, and errors that are one line.

Results go to stdout, as text or with --json; progress and messages go to stderr. The exit status is 0 if all is well,
1 for a fault in the data, 2 for a fault in the command line or in an environment variable, and 130 after Ctrl-C.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Self

import click

from codec.cli.table import safe
from codec.errors import ArgumentError, CodecError, UnknownTensorError
from codec.kernels import MAX_THREADS, thread_count

QUIET_SECONDS = 1.0  # no progress bar for work that is done sooner
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


class TargetPath(click.Path):
    """A file to write. Its folder must exist, so that no work is done in vain."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or status 2."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.name:
            self.fail(f"{value!r} names no file.", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"the folder {str(path.parent)!r} does not exist: create it first.", param, ctx)
        return path


source = click.Path(exists=True, readable=True, path_type=Path)
source_file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
target_file = TargetPath(dir_okay=False, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
force_option = click.option("--force", is_flag=True, help="Overwrite existing files.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only errors on stderr.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="Use at most N threads.  [default: one for each CPU]",
)


class Fault(click.ClickException):
    """A fault in the data: one line on stderr, and status 1."""

    def __init__(self, message: str) -> None:
        super().__init__(safe(" ".join(message.split())))


class CommandFault(Fault):
    """A fault in the command line or the environment: one line on stderr, and status 2."""

    exit_code = 2


class DataFault(click.ClickException):
    """Status 1 without another word: the result that was printed says it all."""

    def __init__(self) -> None:
        super().__init__("")

    def show(self, file: Any = None) -> None:
        """Print nothing."""


class Faults(click.Group):
    """A group of verbs of which what the library or the system refuses becomes one line on stderr, and a status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that the command line names."""
        try:
            thread_count(None)  # refuses wrong values of CODEC_KERNEL and CODEC_NUM_THREADS before any work
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # the reader of stdout has gone; click ends in silence
        except (ArgumentError, UnknownTensorError) as error:
            raise CommandFault(str(error)) from None
        except (CodecError, MemoryError) as error:
            raise Fault(str(error) or "out of memory") from None
        except OSError as error:
            named = error.strerror and error.filename
            raise Fault(f"{error.filename}: {error.strerror}" if named else str(error)) from None


def emit(facts: Any, text: Callable[[], str], as_json: bool) -> None:
    """Print the result: the facts as JSON, or as text. Neither can act on the terminal that shows it."""
    click.echo(as_json_text(facts) if as_json else "\n".join(map(safe, text().split("\n"))))


def as_json_text(facts: Any) -> str:
    """Facts as indented JSON that holds every string whole; only characters that cannot be printed are escaped.

    >>> print(as_json_text({"name": "\\u00e9\\u202e\\x7f"}))
    {
      "name": "\u00e9\\u202e\\u007f"
    }
    """

    def escaped(found: re.Match[str]) -> str:
        return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]

    return re.sub(r"[^\n -~]", escaped, json.dumps(facts, indent=2, ensure_ascii=False))


def refuse_overwrite(paths: list[Path], force: bool) -> None:
    """Status 2 if one of the results is there already."""
    if not force and (there := next((path for path in paths if path.exists()), None)):
        raise click.UsageError(f"{str(there)!r} exists already; --force overwrites it")


def _is_terminal() -> bool:
    return sys.stderr.isatty()


class Progress:
    """A bar on stderr for work that takes longer than a second; none where stderr is no terminal."""

    def __init__(self, total: int, label: str, quiet: bool) -> None:
        self._total, self._label, self._started = total, label, monotonic()
        self._wanted = not quiet and _is_terminal()
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)

    def advance(self, amount: int) -> None:
        """`amount` more of the total is done."""
        self._done += amount
        if not self._wanted:
            return
        if self._bar is not None:
            self._bar.update(amount)
        elif monotonic() - self._started > QUIET_SECONDS:
            self._bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
            self._bar.update(self._done)
