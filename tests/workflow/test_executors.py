"""Where machines share no folder: what jobs leave beside declared files, and a plan over a bucket."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow

PROFILE = ROOT / "profiles" / "kubernetes" / "profile.yaml"
NEEDED = ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_s3", "moto")


def test_what_jobs_share_beside_declared_files_is_on_a_volume() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    shared = set(re.findall(r"--(?:store|scratch) (results/\S+?)[\"\s]", text))
    assert shared == {"results/store", "results/scratch/finetune"}
    claims = yaml.safe_load(PROFILE.read_text())["kubernetes-persistent-volumes"]
    mounted = [Path(claim.partition(":")[2]) for claim in claims]
    for folder in shared:
        assert any((Path("/workdir") / folder).is_relative_to(place) for place in mounted), folder


def test_what_is_written_once_for_all_runs_where_snakemake_does() -> None:
    # A pod has no registry of its own: results/mlflow.db is beside the call of Snakemake.
    local = re.search(r"^localrules:\n((?:    \w+,\n)+)", (ROOT / "Snakefile").read_text(), re.M)
    assert local
    assert {"sync", "registry"} < set(re.findall(r"\w+", local[1]))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3, on loopback, with a bucket."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs pip install -e '.[kubernetes]' 'moto[server,s3]': no {missing[0]}")
    import boto3
    from moto.server import ThreadedMotoServer

    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "SNAKEMAKE_STORAGE_S3_ACCESS_KEY",
        "SNAKEMAKE_STORAGE_S3_SECRET_KEY",
    ):
        monkeypatch.setenv(name, "any")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="grid")
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ENDPOINT_URL", address)
    yield "s3://grid/one"
    server.stop()


def test_the_kubernetes_profile_plans_over_a_bucket(bucket: str, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    checkout.edit("profiles/kubernetes/profile.yaml", "s3://my-bucket/taskgrid", bucket)
    outcome = checkout.run("--profile", "profiles/kubernetes", "-n", "-p", "--until", "finetune")
    assert outcome.rules["finetune"] == 3
    # Declared files are the bucket's; what is not declared stays where volumes are mounted.
    assert re.search(r"--expert \S+/s3/grid/one/results/experts/\S+", outcome.text)
    assert "--scratch results/scratch/finetune" in outcome.text


def test_a_gpu_is_granted() -> None:
    # The plugin (0.5.1) makes limits of requests where `scale` is 0 only, and wants a maker of GPUs.
    default = yaml.safe_load(PROFILE.read_text())["default-resources"]
    assert default["scale"] == 0
    assert default["gpu_manufacturer"] == "nvidia"
