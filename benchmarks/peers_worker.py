"""Merges as mergekit and FusionBench make them: runs in their environment, knows nothing of taskgrid.

    python peers_worker.py FOLDER

FOLDER holds ``base.safetensors``, ``experts/TASK.safetensors``, statistics in ``fisher/`` and ``gram/``, and
``jobs.json``: what to call, with what. What comes out is written to ``theirs/JOB.safetensors``; of methods
with a model per task there is a folder of that name. What fails leaves ``theirs/JOB.txt``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

State = dict[str, Tensor]


def tower(state: Mapping[str, Tensor]) -> nn.Module:
    """Return a module with these parameters by these names; it computes nothing."""
    root = nn.Module()
    for key, tensor in state.items():
        *path, name = key.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(name, nn.Parameter(tensor))
    return root


class Inputs:
    """The files of a folder."""

    def __init__(self, folder: Path, tasks: list[str], dtype: torch.dtype = torch.float32) -> None:
        self.folder, self.tasks, self.dtype = folder, tasks, dtype

    @functools.cached_property
    def base(self) -> State:
        return self.start()

    def start(self) -> State:
        return self.load(self.folder / "base.safetensors")

    def load(self, path: Path) -> State:
        return {key: tensor.to(self.dtype) for key, tensor in load_file(path).items()}

    def expert(self, task: str) -> State:
        return self.load(self.folder / "experts" / f"{task}.safetensors")

    def experts(self) -> list[State]:
        return [self.expert(task) for task in self.tasks]

    def statistic(self, name: str) -> list[State]:
        return [self.load(self.folder / name / f"{task}.safetensors") for task in self.tasks]

    def vectors(self) -> list[State]:
        return [{k: t - self.base[k] for k, t in one.items()} for one in self.experts()]


# FusionBench: its algorithms on pools of modules; where it wants data, its formula on given statistics.


def fusion_bench(call: str, given: dict[str, Any], inputs: Inputs) -> State | dict[str, State]:
    if call in FORMULAS:
        return FORMULAS[call](inputs, **given)
    module, _, name = call.rpartition(".")
    found_in = importlib.import_module(".".join(filter(None, ("fusion_bench.method", module))))
    algorithm = getattr(found_in, name)(**given)
    names = inputs.tasks if module.startswith("slerp") else ["_pretrained_", *inputs.tasks]
    found = algorithm.run(pool_of(inputs, names))
    if call.startswith("emr_merging"):
        return {
            task: added(
                inputs.base,
                {
                    n: v * found.modulators[task].mask[n] * found.modulators[task].rescaler
                    for n, v in found.unified_task_vector.items()
                },
            )
            for task in inputs.tasks
        }
    return {name: tensor.detach() for name, tensor in found.state_dict().items()}


def pool_of(inputs: Inputs, names: list[str]) -> Any:
    """Return a pool that reads a model when it is asked for, as FusionBench's own do."""
    from fusion_bench import BaseModelPool

    class Files(BaseModelPool):
        def load_model(self, name: str, *args: Any, **kwargs: Any) -> nn.Module:
            if name in inputs.tasks:
                return tower(inputs.expert(name))
            return tower(inputs.start()) if name == "_pretrained_" else self._models[name]

    pool = Files(dict.fromkeys(names, ""))
    # Algorithms add what they merged, which their own configuration would not hold.
    pool._models = dict.fromkeys(names, "")
    return pool


def added(base: State, direction: Mapping[str, Tensor]) -> State:
    return {key: (tensor + direction[key]).detach() for key, tensor in base.items()}


def fisher(inputs: Inputs, **given: Any) -> State:
    from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights

    found = inputs.statistic("fisher")
    means = [
        {k: t / float(one["images"]) for k, t in one.items() if k != "images"} for one in found
    ]
    experts = inputs.experts()
    values = {key: [expert[key] for expert in experts] for key in inputs.base}
    count = len(inputs.tasks)
    return merging_with_fisher_weights(values, means, torch.ones(count) / count, **given)


def regmean(inputs: Inputs, **given: Any) -> State:
    """The formula knows weights by ``.weight``: the fused projection is called so for a while."""
    from fusion_bench.method.regmean.regmean import merging_with_regmean_weights

    grams = [
        {
            key.removesuffix("weight").rstrip("._"): gram / float(one["images"])
            for key, gram in one.items()
            if key != "images" and key.startswith("transformer")
        }
        for one in inputs.statistic("gram")
    ]
    called = {key: key.replace("in_proj_weight", "in_proj.weight") for key in inputs.base}
    experts = inputs.experts()
    values = {name: [expert[key] for expert in experts] for key, name in called.items()}
    found = merging_with_regmean_weights(values, grams, **given)
    return {key: found[name] for key, name in called.items()}


def tall_mask(inputs: Inputs, mask_lambda: float) -> dict[str, State]:
    """Its algorithm compares |theta_0 - tau_t|; the formula of its utilities is the paper's."""
    from fusion_bench.method.tall_mask.utils import generate_task_masks

    vectors = inputs.vectors()
    out: dict[str, State] = {task: {} for task in inputs.tasks}
    for key, start in inputs.base.items():
        own = torch.stack([vector[key].reshape(-1) for vector in vectors])
        merged = own.sum(0)
        masks = generate_task_masks(
            own, own, torch.zeros_like(merged), merged, tall_mask_lambda=mask_lambda
        )
        for task, mask in zip(inputs.tasks, masks.reshape(own.shape), strict=True):
            out[task][key] = start + (mask * merged).view_as(start)
    return out


FORMULAS = {"fisher": fisher, "regmean": regmean, "tall_mask": tall_mask}


# mergekit: its whole way from folders to a folder.


def mergekit(call: str, given: dict[str, Any], inputs: Inputs, models: Path, seed: int) -> State:
    with tempfile.TemporaryDirectory() as out:
        mergekit_files(call, given, inputs, models, seed, Path(out))
        return load_file(Path(out) / "model.safetensors")


def mergekit_files(
    call: str, given: dict[str, Any], inputs: Inputs, models: Path, seed: int, out: Path
) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    base, each = given.pop("base", "base"), given.pop("each", {})
    for name in ("base", *inputs.tasks):
        source = inputs.folder / ("" if name == "base" else "experts") / f"{name}.safetensors"
        model(models / name, source)
    said: dict[str, Any] = {
        "merge_method": call,
        "models": [{"model": str(models / task), "parameters": each} for task in inputs.tasks],
        "parameters": given,
        "dtype": "float32",
    }
    if base == "first":
        base = inputs.tasks[0]
    if base:
        said["base_model"] = str(models / base)
    options = MergeOptions(
        copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=seed
    )
    run_merge(MergeConfiguration.model_validate(said), str(out), options)


def model(folder: Path, weights: Path) -> None:
    """Make a folder of transformers' format around a file.

    Transformers cannot make a model of that class: mergekit then takes the tensors by their own names.
    """
    if folder.exists():
        return
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["VisionTransformer"], "model_type": "clip_vision_model"})
    )
    (folder / "model.safetensors").symlink_to(weights.resolve())


def run(job: dict[str, Any], folder: Path) -> State | dict[str, State]:
    torch.manual_seed(job["seed"])
    inputs = Inputs(folder, job["tasks"], torch.float64 if job["double"] else torch.float32)
    if job["peer"] == "mergekit":
        models = folder / "models"
        return mergekit(job["call"], dict(job["given"]), inputs, models, job["seed"])
    return fusion_bench(job["call"], dict(job["given"]), inputs)


def main(folder: Path) -> None:
    theirs = folder / "theirs"
    shutil.rmtree(theirs, ignore_errors=True)
    theirs.mkdir()
    for job in json.loads((folder / "jobs.json").read_text()):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = run(job, folder)
        except Exception as error:
            (theirs / f"{job['name']}.txt").write_text(f"{type(error).__name__}: {error}")
            continue
        if all(isinstance(value, Tensor) for value in found.values()):
            write(theirs / f"{job['name']}.safetensors", found)
        else:
            for task, state in found.items():
                write(theirs / job["name"] / f"{task}.safetensors", state)


def write(path: Path, state: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: t.detach().clone().contiguous() for k, t in state.items()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
