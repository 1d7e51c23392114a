"""After a kill the next call goes on; and no call of any kind tells the registry's password."""

from __future__ import annotations

import pytest

from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow

SYNC = "results/registry/sync.json"
URI = "http://me:s3cret@127.0.0.1:9/?token=t0p-s3cret"


def test_after_a_kill_the_next_call_goes_on_and_no_call_tells_a_password(
    checkout: Checkout,
) -> None:
    checkout.config["tracking"] = {"uri": URI}
    (checkout / "results/figures/heatmap.png").unlink()
    with checkout.begin(SYNC) as killed:
        assert killed.stdout is not None
        said = []
        for line in killed.stdout:
            said.append(line)
            if "draw heatmap" in line:
                break
        killed.kill()
        # What a killed call had begun goes on by itself, and may as well end.
        said.append(killed.stdout.read())
    assert list((checkout / ".snakemake/locks").glob("*.lock"))

    # Snakemake writes a call's command line into its log.
    outcome = checkout.run(SYNC, "--config", f"tracking={{uri: '{URI}'}}")
    assert f"was killed here (process {killed.pid} on " in outcome.text
    assert outcome.rules == {"figure": 1, "sync": 1}
    assert "http://127.0.0.1:9/?token=*** does not answer" in outcome.text
    assert not (checkout / ".snakemake/locks").exists()

    assert "s3cret" not in "".join([*said, outcome.text])
    telling = [path for path in checkout.folder.rglob("*") if path.is_file()]
    telling = [path for path in telling if b"s3cret" in path.read_bytes()]
    assert [path.name for path in telling] == ["tiny.yaml"]
