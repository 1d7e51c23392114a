"""What jobs print goes to a file, and the streams come back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CALL = """
import subprocess, sys
from pathlib import Path
from taskgrid.workflow.terminal.output import JobOutput
print("before")
output = JobOutput(Path(sys.argv[1]))
print("said by the process")
subprocess.run(["sh", "-c", "echo said by a job; echo and its error >&2"], check=True)
output.write("said by the scheduler")
output.close()
print("after")
print("at the end", file=sys.stderr)
"""


def test_jobs_write_to_the_file_and_not_to_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    for _ in range(2):
        command = [sys.executable, "-c", CALL, str(log)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "before\nafter\n" and done.stderr == "at the end\n"
    lines = log.read_text().splitlines()
    once = {"said by the process", "said by a job", "and its error", "said by the scheduler"}
    assert sorted(lines) == sorted([*once, *once])
