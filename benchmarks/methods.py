"""Merge methods from files to a file, against mergekit and FusionBench: seconds and memory.

    python benchmarks/methods.py [--architecture ViT-L-14] [--methods ties tsv_m] [--turns 3]

Eight experts of a tower of open_clip (float32, random weights: speed does not depend on them), from
safetensors files to one. Every program runs in a process of its own, in turns; time counts from the call to
the finished file, imports left out. Statistics are given: all tasks share one file, which each reads anew.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environment import default_folder, environment, offline
from merging import Measured, resident

TASKS = tuple(f"task{i}" for i in range(8))
SIZES = {
    "ViT-B-32": {"width": 768, "layers": 12, "heads": 12, "patch_size": 32, "output_dim": 512},
    "ViT-L-14": {"width": 1024, "layers": 24, "heads": 16, "patch_size": 14, "output_dim": 768},
}
PROGRAMS = ("taskgrid", "mergekit", "fusion_bench")


@dataclass(frozen=True)
class Work:
    """A method, and what means the same to the peers.

    Attributes:
        method: taskgrid's method.
        options: its options.
        mergekit: mergekit's method and parameters; None where it has none.
        fusion_bench: FusionBench's algorithm and arguments; None where it has none, or not the memory.
        needs: the statistic.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mergekit: tuple[str, Mapping[str, Any]] | None = None
    fusion_bench: tuple[str, Mapping[str, Any]] | None = None
    needs: str | None = None

    @property
    def programs(self) -> list[str]:
        """Those that have it."""
        return ["taskgrid", *(name for name in PROGRAMS[1:] if getattr(self, name))]


WORK = {
    # FusionBench holds all experts beside each other several times: over 19 GiB.
    "ties": Work(
        "ties",
        {"trim": "tensor", "zero_sign": "positive"},
        mergekit=("ties", {"normalize": True, "each": {"weight": 1.0, "density": 0.2}}),
    ),
    "ties_global": Work("ties"),
    "tsv_m": Work(
        "tsv_m",
        fusion_bench=("task_singular_vector.TaskSingularVectorMerging", {"alpha": 1.0}),
    ),
    "iso_c": Work(
        "iso_c",
        fusion_bench=(
            "isotropic_merging.IsotropicMergingInCommonSubspace",
            {"scaling_factor": 1.0},
        ),
    ),
    "regmean": Work(
        "regmean",
        fusion_bench=("regmean", {"reduce_non_diagonal_ratio": 0.95}),
        needs="gram",
    ),
    "fisher": Work(
        "fisher", fusion_bench=("fisher", {"normalize_fisher_weight": False}), needs="fisher"
    ),
}
IMPORTS = {
    "taskgrid": ("taskgrid.outofcore.merge", "taskgrid.outofcore.whole"),
    "mergekit": ("mergekit.merge", "peers_worker"),
    "fusion_bench": ("fusion_bench.method", "fusion_bench.modelpool", "peers_worker"),
}


# Workers: one program, one process.


def taskgrid(work: Work, inputs: Path, output: Path) -> None:
    from taskgrid.merging.recipe import MergeRecipe
    from taskgrid.outofcore.inputs import Inputs
    from taskgrid.outofcore.merge import Output, stream_merge
    from taskgrid.outofcore.outputs import Frame
    from taskgrid.outofcore.whole import merge_whole

    recipe = MergeRecipe.of(work.method, work.options)
    outputs = [Output(output, TASKS, 1.0)]
    base = inputs / "base.safetensors"
    if recipe.scope == "model":
        vectors = {task: inputs / "vectors" / f"{task}.safetensors" for task in TASKS}
        merge_whole(Inputs.open(base, vectors), recipe, outputs, Frame(), {}, None)
        return
    needed = work.needs or ""
    files = {task: inputs / needed / f"{task}.safetensors" for task in TASKS}
    stream_merge(
        work.method,
        base,
        {task: inputs / "experts" / f"{task}.safetensors" for task in TASKS},
        outputs,
        max_bytes=4 << 30,
        statistics={needed: files} if needed else None,
        **work.options,
    )


def mergekit(work: Work, inputs: Path, output: Path) -> None:
    import peers_worker

    assert work.mergekit is not None
    call, given = work.mergekit
    peers_worker.mergekit_files(
        call,
        dict(given),
        peers_worker.Inputs(inputs, list(TASKS)),
        inputs / "models",
        0,
        output.with_suffix(""),
    )


def fusion_bench(work: Work, inputs: Path, output: Path) -> None:
    import peers_worker

    assert work.fusion_bench is not None
    call, given = work.fusion_bench
    found = peers_worker.fusion_bench(call, dict(given), peers_worker.Inputs(inputs, list(TASKS)))
    peers_worker.write(output, found)


def work(args: argparse.Namespace) -> None:
    """Run one program once and print what it took."""
    for module in IMPORTS[args.program]:
        importlib.import_module(module)
    what = WORK[args.method]
    if args.program == "taskgrid":
        importlib.import_module(f"taskgrid.merging.methods.{what.method}")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started, busy = time.perf_counter(), time.process_time()
    globals()[args.program](what, args.inputs, args.output)
    taken = {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - busy,
        "bytes": resident("VmHWM") - before,
    }
    print(json.dumps(taken))


# The comparison.


def make_inputs(folder: Path, architecture: str, needs: set[str]) -> None:
    """Write a base, experts near it, their task vectors and statistics."""
    import torch
    from open_clip.transformer import VisionTransformer
    from safetensors.torch import save_file

    from taskgrid.store.weights import save_state
    from taskgrid.vectors import TaskVector

    torch.manual_seed(0)
    tower = VisionTransformer(image_size=224, mlp_ratio=4.0, **SIZES[architecture])
    base = {key: tensor.detach().clone() for key, tensor in tower.state_dict().items()}
    save_state(folder / "base.safetensors", base, {})
    (folder / "experts").mkdir()
    (folder / "vectors").mkdir()
    for task in TASKS:
        expert = {key: torch.randn_like(t).mul_(1e-3).add_(t) for key, t in base.items()}
        save_file(expert, folder / "experts" / f"{task}.safetensors")
        TaskVector.between(base, expert).save(folder / "vectors" / f"{task}.safetensors")
    for name in needs:
        (folder / name).mkdir()
        if name == "gram":
            found = _grams(base)
        else:
            found = {key: torch.rand_like(t).mul_(1e-3) for key, t in base.items()}
        found["images"] = torch.tensor(256)
        save_file(found, folder / name / "all.safetensors")
        for task in TASKS:
            (folder / name / f"{task}.safetensors").symlink_to("all.safetensors")


def _grams(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return positive definite matrices: one of each size, its rows and columns multiplied."""
    import torch

    found, of_size = {}, {}
    for key, tensor in base.items():
        if tensor.dim() == 2 and "resblocks" in key:
            size = tensor.shape[1]
            if size not in of_size:
                rows = torch.randn(2 * size, size)
                of_size[size] = rows.T @ rows / (2 * size)
            sizes = torch.rand(size).add_(0.5)
            found[key] = of_size[size] * sizes * sizes[:, None]
    return found


def run(program: str, python: Path, method: str, inputs: Path, output: Path) -> dict[str, float]:
    """Run a worker; its output goes when the next one runs."""
    shutil.rmtree(output.parent, ignore_errors=True)
    output.parent.mkdir()
    command = [
        sys.executable if program == "taskgrid" else python, __file__, "work", program, method,
        "--inputs", inputs, "--output", output,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=offline())
    if done.returncode:
        sys.exit(f"{program} failed at {method}:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(args: argparse.Namespace) -> None:
    from pairing import machine

    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    python = environment(args.environment)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        inputs, output = Path(folder) / "inputs", Path(folder) / "output" / "merged.safetensors"
        inputs.mkdir()
        wanted = {WORK[name].needs for name in args.methods}
        make_inputs(inputs, args.architecture, {name for name in wanted if name})
        print(machine())
        print(
            f"load {os.getloadavg()[0]:.1f}; {args.architecture}, {len(TASKS)} experts", flush=True
        )
        for method in args.methods:
            programs = [p for p in WORK[method].programs if p in args.programs]
            measured = {program: Measured() for program in programs}
            for _ in range(args.turns):
                for program in programs:
                    measured[program].add(run(program, python, method, inputs, output))
            print(method)
            for program, found in measured.items():
                ours = measured.get("taskgrid", found)
                pairs = zip(ours.seconds, found.seconds, strict=True)
                ratio = statistics.median(other / own for own, other in pairs)
                print(f"  {program:14}{found}  x{ratio:.2f}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.set_defaults(action=main)
    parser.add_argument("--architecture", choices=SIZES, default="ViT-B-32")
    parser.add_argument("--methods", nargs="*", choices=WORK, default=list(WORK))
    parser.add_argument("--programs", nargs="*", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of all programs")
    parser.add_argument("--environment", type=Path, default=default_folder())
    parser.add_argument("--folder", type=Path, help="where files are written for a while")
    worker = parser.add_subparsers().add_parser("work")
    worker.set_defaults(action=work)
    worker.add_argument("program", choices=PROGRAMS)
    worker.add_argument("method", choices=WORK)
    worker.add_argument("--inputs", type=Path, required=True)
    worker.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    arguments.action(arguments)
