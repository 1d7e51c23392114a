"""What a person sees: the plan of a change, one line in a terminal, plain lines in a file, the end."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Mapping

import pytest

from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow

LOGGED = ("--logger", "taskgrid")
BLOCK = "results/eval/taskgrid-vit-4-s0/standard/0/average/00000/rows.parquet"


def in_a_terminal(checkout: Checkout, *arguments: str) -> str:
    """Call Snakemake in a terminal of 100 columns, and return what it shows."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with checkout.begin(*arguments, stdout=theirs) as call:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        assert call.wait() == 0, shown.decode()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def by_first_word(text: str) -> Mapping[str, str]:
    """Return the lines of a status."""
    return {line.split(" ")[0]: line.partition(" ")[2].strip() for line in text.splitlines()}


def test_a_changed_configuration_is_planned_run_and_reported(checkout: Checkout) -> None:
    checkout.config["grid"]["lambdas"] = [0, 0.5, 0.75, 1]
    # The average has the lambdas of the grid here; of 3 tasks there are 7 subsets.
    sentence = r"14 new points in \d+ jobs, about .* on 2 cores, because lambda 0.75 was added"
    planned = checkout.run("-n", "--cores", "2", *LOGGED)
    assert re.search(rf"^{sentence}$", planned.text, re.MULTILINE), planned.text
    assert "before:" not in planned.text and "taskgrid.merging" not in planned.text

    told = checkout.run("-n", "--cores", "2", *LOGGED, "--logger-taskgrid-show", "status")
    status = by_first_word(told.text)
    assert status["experts"] == "3 of 3" and status["points"] == "42 of 56"
    assert status["running"] == "nothing" and "0.75" in status["to"]

    # The line of progress is wiped out in the end; what stays are the first and the last line.
    shown = in_a_terminal(checkout, BLOCK, *LOGGED)
    sentence = sentence.replace("14", "3")
    assert re.search(sentence, shown) and "all that was said: results/logs/run.log" in shown
    frames = [part for part in shown.split("\r") if " jobs · " in part]
    assert re.search(r"evaluate block 00000 of average", "".join(frames))
    assert all(len(frame.rstrip("\n\x1b[A")) <= 100 for frame in frames)
    log = (checkout / "results/logs/run.log").read_text()
    assert "Select jobs to execute" in log and re.search(r"evaluated \d+ rows", log)
    assert "Select jobs" not in shown and "evaluated" not in shown

    plain = checkout.run(BLOCK, *LOGGED)
    assert "\r" not in plain.text
    assert plain.text.splitlines()[-1] == "everything is up to date"

    command = [sys.executable, "-m", "taskgrid.workflow.terminal.ending"]
    end = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=True)
    assert "Task arithmetic, all 3, λ = " in end.stdout and "Averaging, all 3" in end.stdout


def test_a_failed_job_says_why_and_where_its_log_is(checkout: Checkout) -> None:
    archive = checkout / "data/b/b.npz"
    archive.write_bytes(archive.read_bytes()[:2000])
    outcome = checkout.snakemake(*LOGGED)
    assert outcome.code == 1
    told = re.findall(
        r"(?m)^failed: decode the images of b once, at 24px: .+\n    log: (.+)$", outcome.text
    )
    assert told == ["results/logs/dataset/24px/b.log"], outcome.text
    assert "set -euo pipefail" not in outcome.text and "1 of " in outcome.text.splitlines()[-1]
