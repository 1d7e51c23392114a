"""A package of other people's plug-ins, one of each kind: found, read, used, and in the digests.

What it takes to add one is counted here: a file, and a line where the package registers it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from taskgrid import plugins
from taskgrid.alignment import transport
from taskgrid.config import Experiment, parse_config
from taskgrid.evaluation import evaluate_grid, learn_coefficients
from taskgrid.evaluation.plan.keys import computing_code
from taskgrid.finetuning.modes.seam import Others, get_mode
from taskgrid.merging import merge, merge_per_task
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.cards import plugin_options, read_card
from taskgrid.statistics.computing import compute_statistic
from taskgrid.statistics.seam import Examples
from taskgrid.store.weights import State, digest_state
from taskgrid.workflow.project import ROOT, SOURCE
from tests.plugins.installed import PACKAGE, importable, install, registration
from tests.unit.example_config import changed
from tests.unit.example_grid import World, world
from tests.unit.example_statistics import examples

FILES = {module: name for name, module in registration().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", autouse=True)
def outside(folder: Path) -> Iterator[None]:
    with importable(folder, "outside_plugins"):
        yield


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"))


def vectors(small: World) -> dict[str, State]:
    return {
        task: {key: state[key].double() - small.base[key].double() for key in state}
        for task, state in small.experts.items()
    }


def check(found: State, small: World, direction: State, scale: float) -> None:
    for key, tensor in found.items():
        exact = small.base[key].double() + scale * direction[key]
        torch.testing.assert_close(tensor.double(), exact, rtol=1e-6, atol=1e-6)


def test_each_is_one_file_and_one_line() -> None:
    files = {path.stem for path in (PACKAGE / "outside_plugins").glob("*.py")} - {"__init__"}
    assert len(FILES) == len(registration()) == len(files)
    assert {module.rpartition(".")[2] for module in FILES} == files
    kinds = [name.split(".")[0] for name in registration()]
    assert set(kinds) == {"merger", "statistic", "mode", "study", "figure", "aligner"}
    page = (ROOT / "docs" / "plugins.md").read_text()
    for module in FILES:
        text = (PACKAGE / f"{module.replace('.', '/')}.py").read_text()
        assert "outside_plugins" not in text, "a file that needs another is not one file"
        assert text.strip() in page, "docs/plugins.md shows the whole file"


def test_they_are_listed_and_their_cards_are_read_with_nothing_imported(folder: Path) -> None:
    script = """
import sys
from taskgrid.plugins import names
from taskgrid.plugins.cards import read_card
for entry in sys.argv[1:]:
    kind, name = entry.split(".")
    assert names(kind)[-1] == name or name in names(kind)
    assert read_card(kind, name).title
heavy = {"torch", "numpy", "pyarrow", "outside_plugins"} & sys.modules.keys()
raise SystemExit(f"imported {heavy}" if heavy else 0)
"""
    path = os.pathsep.join(map(str, (folder, SOURCE)))
    done = subprocess.run(
        [sys.executable, "-c", script, *registration()],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("entry", registration())
def test_a_card_is_what_its_module_says(entry: str) -> None:
    kind, name = entry.split(".")
    assert read_card(kind, name) == plugins.load(kind, name).CARD  # type: ignore[arg-type]


def test_an_edit_changes_the_digest_and_a_comment_does_not(folder: Path) -> None:
    module = plugins.module_of("merger", "by_norm")
    before, path = computing_code(module), folder / "outside_plugins" / "method_with_statistic.py"
    text = path.read_text()
    try:
        for old, new, same in (
            ("class ByNorm", "# heavier\nclass ByNorm", True),
            ("/ total", "/ (2 * total)", False),
        ):
            assert old in text
            path.write_text(text.replace(old, new))
            os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9 * (1 + same)))
            assert (computing_code(module) == before) == same
    finally:
        path.write_text(text)


def test_the_configuration_knows_them() -> None:
    raw = changed("grid/methods", ["one_bit", "by_norm", "company", "surest"])
    raw |= {"studies": ["worst"], "finetune": {**raw["finetune"], "modes": ["biases"]}}
    found = Experiment(parse_config(raw))
    assert found.needs("by_norm") == {"norms": "norms"} and found.statistics == ("norms",)
    assert found.recipe("a", "biases")["weight_decay"] == 0


def test_a_method(small: World) -> None:
    direction = {
        key: sum(tau[key].abs().mean() * tau[key].sign() for tau in vectors(small).values())
        for key in small.base
    }
    check(merge("one_bit", small.base, small.experts, 0.4), small, direction, 0.4)


def test_a_statistic_and_the_method_that_needs_it(small: World) -> None:
    norms: dict[str, State] = {}
    for name, task in small.tasks.items():
        encoder = ImageEncoder.from_card(small.card, small.experts[name])
        pixels = torch.from_numpy(task.val[0]).permute(0, 3, 1, 2) / 255
        means = [
            torch.tensor(each).reshape(1, 3, 1, 1) for each in (small.card.mean, small.card.std)
        ]
        with torch.no_grad():
            expected = encoder((pixels - means[0]) / means[1]).norm(dim=-1).mean()
        norms[name] = compute_statistic(
            "norms", small.card, small.experts[name], None, Examples(*task.val)
        )
        assert float(norms[name]["norm"]) == pytest.approx(float(expected), rel=1e-5)
        assert int(norms[name]["images"]) == len(task.val[1])
    sizes = {name: float(state["norm"]) for name, state in norms.items()}
    direction = {
        key: sum(sizes[task] * tau[key] for task, tau in vectors(small).items())
        / sum(sizes.values())
        for key in small.base
    }
    found = merge("by_norm", small.base, small.experts, 0.7, statistics={"norms": norms})
    check(found, small, direction, 0.7)


def test_a_method_with_a_model_for_each_task(small: World) -> None:
    models, tau = merge_per_task("company", small.base, small.experts, 0.5), vectors(small)
    for task, other in ("ab", "ba"):
        direction = {key: tau[task][key] + 0.5 * tau[other][key] for key in small.base}
        check(models[task], small, direction, 0.5)


def test_a_method_that_learns(small: World) -> None:
    learned = learn_coefficients(
        "surest", small.base, small.card, small.tasks, experts=small.experts
    )
    tau, entropies = vectors(small), {}
    for scale in (0.0, 0.25, 0.5, 0.75, 1.0):
        merged = merge("task_arithmetic", small.base, small.experts, scale)
        encoder = ImageEncoder.from_card(small.card, merged)
        entropies[scale] = 0.0
        for task in small.tasks.values():
            pixels = torch.from_numpy(task.val[0][:16]).permute(0, 3, 1, 2) / 255
            means = [torch.tensor(x).reshape(1, 3, 1, 1) for x in (small.card.mean, small.card.std)]
            with torch.no_grad():
                chances = task.head.logits(encoder((pixels - means[0]) / means[1])).softmax(dim=-1)
            entropies[scale] -= float((chances * chances.log()).sum(dim=-1).mean())
    best = min(entropies, key=lambda scale: entropies[scale])
    assert {float(one) for one in learned.values()} == {best}
    direction = {key: best * (tau["a"][key] + tau["b"][key]) for key in small.base}
    merged = merge("surest", small.base, small.experts, 1.0, learned=learned)
    check(merged, small, direction, 1.0)


def test_a_mode(small: World) -> None:
    encoder = ImageEncoder.from_card(small.card, small.base).requires_grad_(False)
    options = plugin_options("mode", "biases", {})
    trainee = get_mode("biases").prepare(encoder, options, 0, Others())
    names = {name for name, _ in encoder.named_parameters() if name.endswith("bias")}
    assert {name.removeprefix("encoder.") for name in trainee.trained()} == names


def test_a_study_of_methods(small: World) -> None:
    table = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts=small.experts,
        methods=["one_bit", "company"],
        lambdas=[0, 0.5, 1],
        studies=["worst"],
    )
    for method in ("one_bit", "company"):
        rows = table[(table["method"] == method) & (table["subset"] == "a+b")]
        val = rows[rows["split"] == "val"].groupby("point", sort=True)["accuracy"].min()
        chosen = rows[(rows["split"] == "test") & rows["in_subset"]]["point"].unique()
        assert list(chosen) == [val.index[int(np.argmax(val.to_numpy()))]]


def test_an_aligner(small: World) -> None:
    there = {key: 3 * tensor.flip(0) for key, tensor in small.base.items()}
    moved = transport("rescaled", small.base, small.experts, there)["a"]
    for key, tensor in moved.items():
        exact = there[key].double() + 3 * vectors(small)["a"][key]
        torch.testing.assert_close(tensor.double(), exact, rtol=1e-5, atol=1e-5)


def test_an_aligner_that_is_shown_images(small: World) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    there = dict(small.base)
    for block in range(2):
        mlp = f"transformer.resblocks.{block}.mlp"
        for name in ("c_fc.weight", "c_fc.bias"):
            there[f"{mlp}.{name}"] = small.base[f"{mlp}.{name}"][order]
        there[f"{mlp}.c_proj.weight"] = small.base[f"{mlp}.c_proj.weight"][:, order]
    card = replace(small.card, base=digest_state(there))
    moved = transport(
        "together",
        small.base,
        small.experts,
        there,
        source_card=small.card,
        target_card=card,
        images={task: examples(small, task) for task in "ab"},
        carry="model",
    )["a"]
    encoders = [ImageEncoder.from_card(small.card, state) for state in (small.experts["a"], moved)]
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encoders[1](pixels), encoders[0](pixels), rtol=1e-4, atol=1e-5)
    assert not torch.equal(there[f"{mlp}.c_fc.weight"], small.base[f"{mlp}.c_fc.weight"])
