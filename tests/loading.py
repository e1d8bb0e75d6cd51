"""How much memory of its own a process takes at most while it loads a model, looked at from outside.

Pages of mapped files are not counted: the system can take them back at any time. A process is looked at every half
millisecond, in which no more than a MiB or two of new memory can be written.
"""

import json
import select
import subprocess
import sys
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the system does not say how much memory was held"
)

# What the process runs first; it calls started() before it loads, and prints a JSON value as its last line.
START = """
import json, sys
def started():
    own = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    print(int(own.split()[1]) << 10, flush=True)
"""


def peak(script: str, *arguments) -> tuple[int, object]:
    """Bytes that a script takes at most after started(), and what it printed."""
    command = [sys.executable, "-c", START + script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        status, most = Path(f"/proc/{process.pid}/status"), 0
        before = int(process.stdout.readline())
        while not select.select([process.stdout], [], [], 0.0005)[0]:
            own = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            most = max(most, int(own.split()[1]) << 10)
        found = json.loads(process.stdout.readline())
    assert process.returncode == 0
    return most - before, found
