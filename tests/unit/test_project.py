"""The project's own files agree with each other: pins, reference, registry."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from taskgrid import plugins
from taskgrid.config import read_config

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_pin_what_the_lock_file_pins(env: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    listed = yaml.safe_load(env.read_text())["dependencies"]
    (pip,) = (part["pip"] for part in listed if isinstance(part, dict))
    for pin in pip:
        assert re.search(rf"^{re.escape(pin)} [;\\]", lock, re.MULTILINE), pin


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-docs.lock"])
def test_every_pin_has_hashes_and_every_requirement_a_pin(file: str) -> None:
    lock = (ROOT / file).read_text()
    pins = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert {len(pin.splitlines()) > 1 for pin in pins} == {True}
    assert {
        bool(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line))
        for pin in pins
        for line in pin.splitlines()[1:]
    } == {True}
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = read["project"]
    wanted = {
        "requirements.lock": project["dependencies"] + project["optional-dependencies"]["dev"],
        "requirements-docs.lock": read["dependency-groups"]["docs"],
    }[file]
    names = {re.split("[<>=]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= {pin.split("==")[0] for pin in pins}


def test_every_environment_has_the_python_that_the_lock_file_is_made_for() -> None:
    (made_for,) = re.findall(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={made_for}"
    for env in ENVIRONMENTS:
        assert f"python={made_for}" in yaml.safe_load(env.read_text())["dependencies"], env
    recipe = (ROOT / "Containerfile").read_text()
    assert re.findall(r"^FROM \S+/python:([\d.]+)-", recipe, re.MULTILINE) == [made_for]


def test_the_container_has_the_packages_of_the_lock_file_and_no_others() -> None:
    recipe = (ROOT / "Containerfile").read_text()
    copied = re.findall(r"^COPY (\S+) (\S+)$", recipe, re.MULTILINE)
    ((file, folder),) = copied
    ran = [line for line in re.findall(r"^RUN (.*)$", recipe, re.MULTILINE) if "pip" in line]
    assert ran == [f"pip install --require-hashes --requirement {folder}{file}"]
    assert (ROOT / ".dockerignore").read_text().split() == ["*", f"!{file}"]


def test_actions_are_pinned_by_commit() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
    used = [line for file in files for line in re.findall(r"uses: *(.*)", file.read_text())]
    assert used
    for line in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", line), line


@pytest.mark.parametrize("kind", get_args(plugins.Kind))
def test_every_registered_plugin_is_a_module(kind: plugins.Kind) -> None:
    assert plugins.names(kind)
    for name in plugins.names(kind):
        assert importlib.import_module(plugins.module_of(kind, name))


@pytest.mark.parametrize(
    "script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem
)
def test_scripts_import_from_modules_not_from_packages(script: Path) -> None:
    # Packages look their public names up when they are used; a static closure cannot follow that.
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taskgrid."):
            package = ROOT / "src" / node.module.replace(".", "/") / "__init__.py"
            assert not package.exists() or "__getattr__" not in package.read_text(), node.module


def test_the_registry_and_the_snakefile_need_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, taskgrid.plots, taskgrid.workflow.project, taskgrid.workflow.settings\n"
        "heavy = {'torch', 'mlflow', 'matplotlib', 'open_clip', 'pandas'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "preset",
    [None, *sorted((ROOT / "presets").glob("*.yaml"))],
    ids=lambda p: p.stem if p else "default",
)
def test_presets_are_valid(preset: Path | None) -> None:
    read_config(ROOT / "config.yaml", *([preset] if preset else []))


@pytest.mark.parametrize("hook", ["onstart", "onsuccess", "onerror"])
def test_a_hook_stands_once(hook: str) -> None:
    # Of several, Snakemake runs the last one alone, and says nothing of the others.
    rules = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    text = "\n".join(path.read_text() for path in rules)
    assert len(re.findall(rf"^{hook}:", text, re.MULTILINE)) <= 1
