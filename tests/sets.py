"""Running a script with each instruction set that there is, in a process of its own."""

import os
import subprocess
import sys

from codec import kernels


def printed_by_every_set(script: str) -> set[bytes]:
    """What it prints: one text where all sets agree."""

    def printed(name: str) -> bytes:
        environment = {**os.environ, "CODEC_KERNEL": name}
        command = [sys.executable, "-P", "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    return {printed(name) for name in kernels.info()["available"]}
