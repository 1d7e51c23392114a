"""Say what an experiment needs and what is missing, before the first GPU hour."""

import sys
from pathlib import Path

from taskgrid.config.experiment import Experiment
from taskgrid.config.load import parse_config
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.doctor import examine, report


def main() -> None:
    """Print the findings; end with status 1 if something is missing."""
    args = parse(__doc__, paths=("results",))
    findings = examine(Experiment(parse_config(args.settings)), Path(args.results))
    print(report(findings))
    sys.exit(any(finding.state == "missing" for finding in findings))


if __name__ == "__main__":
    run(main)
