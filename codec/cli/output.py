"""What every verb shares: options, the two streams, and errors that are one line.

Results go to stdout, as text or with --json; progress and messages go to stderr. A fault in the data ends with status
1, a fault in the command line with 2.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Self

import click

from codec.errors import CodecError
from codec.kernels import MAX_THREADS

QUIET_SECONDS = 1.0  # no progress bar for work that is done sooner

source = click.Path(exists=True, readable=True, path_type=Path)
source_file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
target_file = click.Path(dir_okay=False, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
force_option = click.option("--force", is_flag=True, help="Overwrite what is there.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress bar and no messages.")
threads_option = click.option(
    "--threads", type=click.IntRange(1, MAX_THREADS), metavar="N", help="Threads to use; all CPUs by default."
)


class Verbs(click.Group):
    """The group of verbs: what the library or the system refuses becomes one line on stderr and status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of stdout has gone; click ends in silence
        except (CodecError, MemoryError) as error:
            message = str(error) or "out of memory"
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.strerror and error.filename else str(error)
        raise click.ClickException(" ".join(message.split()))


class DataFault(click.ClickException):
    """Status 1 without another word: the result that was printed says it all."""

    def __init__(self) -> None:
        super().__init__("")

    def show(self, file: Any = None) -> None:
        pass


def emit(facts: Any, text: Callable[[], str], as_json: bool) -> None:
    """Print the result: the facts as JSON, or as text."""
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else text())


def refuse_overwrite(paths: list[Path], force: bool) -> None:
    """Status 2 if one of the results is there already."""
    if not force and (there := next((path for path in paths if path.exists()), None)):
        raise click.UsageError(f"{str(there)!r} exists already; --force overwrites it")


class Progress:
    """A bar on stderr for work that takes longer than a second; none where stderr is no terminal."""

    def __init__(self, total: int, label: str, quiet: bool) -> None:
        self._total, self._label, self._started = total, label, monotonic()
        self._wanted = not quiet and sys.stderr.isatty()
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
