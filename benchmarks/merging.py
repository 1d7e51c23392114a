"""Merging from files to files, against mergekit, FusionBench and the speed of a plain copy.

    python benchmarks/merging.py [--architecture ViT-L-14] [--turns 3] [--lambdas 21]

Eight experts of a base by task arithmetic. Every program reads the same folders of transformers'
format (float32, random weights: speed does not depend on them) and writes safetensors. They run in
turns, each in a process of its own; time counts from the call to the finished file, imports left
out, and peak memory is the process's resident set over what it is after the imports. The first turn
warms up the page cache and is not counted. The peers live in an environment of their own
(``--environment``), made on the first run (``environment.py``).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from environment import default_folder, environment, offline

TASKS = tuple(f"task{i}" for i in range(8))
SIZES = {
    "ViT-B-32": {"hidden_size": 768, "layers": 12, "heads": 12, "patch": 32, "output": 512},
    "ViT-L-14": {"hidden_size": 1024, "layers": 24, "heads": 16, "patch": 14, "output": 768},
}


# Workers: one program, one process.


def copy(inputs: Path, outputs: list[tuple[float, Path]]) -> None:
    """Read every file once, one multiply-add per output and expert in float32, write: the limit."""
    from safetensors.torch import load_file, save_file

    base = load_file(inputs / "base" / "model.safetensors")
    sums = [{k: t * (1 - scale * len(TASKS)) for k, t in base.items()} for scale, _ in outputs]
    for task in TASKS:
        expert = load_file(inputs / task / "model.safetensors")
        for (scale, _), state in zip(outputs, sums, strict=True):
            for key, tensor in state.items():
                tensor.add_(expert[key], alpha=scale)
    for (_, path), state in zip(outputs, sums, strict=True):
        path.mkdir(parents=True)
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def taskgrid(inputs: Path, outputs: list[tuple[float, Path]]) -> None:
    from taskgrid.outofcore.merge import Output, stream_merge

    stream_merge(
        "task_arithmetic",
        inputs / "base",
        {task: inputs / task for task in TASKS},
        [Output(path / "model.safetensors", TASKS, scale) for scale, path in outputs],
    )


def mergekit(inputs: Path, outputs: list[tuple[float, Path]]) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    for scale, path in outputs:
        run_merge(
            MergeConfiguration.model_validate(
                {
                    "merge_method": "task_arithmetic",
                    "base_model": str(inputs / "base"),
                    "models": [
                        {"model": str(inputs / task), "parameters": {"weight": 1.0}}
                        for task in TASKS
                    ],
                    "parameters": {"lambda": scale, "normalize": False},
                    "dtype": "float32",
                }
            ),
            str(path),
            MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True),
        )


def fusion_bench(inputs: Path, outputs: list[tuple[float, Path]]) -> None:
    from fusion_bench.method.task_arithmetic import TaskArithmeticAlgorithm
    from fusion_bench.modelpool import CLIPVisionModelPool

    for scale, path in outputs:
        models = {"_pretrained_": str(inputs / "base")} | {t: str(inputs / t) for t in TASKS}
        pool = CLIPVisionModelPool(models)
        pool.save_model(TaskArithmeticAlgorithm(scaling_factor=scale).run(pool), str(path))


PROGRAMS: dict[str, Callable[[Path, list[tuple[float, Path]]], None]] = {
    "copy": copy,
    "taskgrid": taskgrid,
    "mergekit": mergekit,
    "fusion_bench": fusion_bench,
}
PEERS = ("mergekit", "fusion_bench")
IMPORTS = {
    "copy": ("safetensors.torch",),
    "taskgrid": (
        "taskgrid.outofcore.merge",
        "taskgrid.merging.methods.task_arithmetic",
    ),
    "mergekit": ("mergekit.merge",),
    "fusion_bench": (
        "fusion_bench.method.task_arithmetic",
        "fusion_bench.modelpool",
        "transformers.models.clip.modeling_clip",
    ),
}
"""What a program imports; done before its clock starts."""


def work(args: argparse.Namespace) -> None:
    """Run one program once and print what it took."""
    for module in IMPORTS[args.program]:
        importlib.import_module(module)
    outputs = [(float(scale), args.outputs / scale) for scale in args.scales]
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started, busy = time.perf_counter(), time.process_time()
    PROGRAMS[args.program](args.inputs, outputs)
    taken = {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - busy,
        "bytes": resident("VmHWM") - before,
    }
    print(json.dumps(taken))


def resident(entry: str) -> int:
    found = re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


# The comparison.


@dataclass
class Measured:
    """Seconds by the clock and of the processors, and bytes of a program, per turn."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def add(self, found: dict[str, float], times: float = 1.0) -> None:
        """Add a turn; its times stand for ``times`` as much work."""
        self.seconds.append(found["seconds"] * times)
        self.processor.append(found["processor"] * times)
        self.memory.append(int(found["bytes"]))

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return (
            f"{statistics.median(self.seconds):.2f} s ({low:.2f} to {high:.2f}), "
            f"{statistics.median(self.processor):.2f} s of processors, "
            f"{max(self.memory) / 2**20:.0f} MiB"
        )


def make_inputs(folder: Path, architecture: str) -> int:
    """Write a random base and experts near it; return the bytes of one."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    size = SIZES[architecture]
    config = transformers.CLIPVisionConfig(
        hidden_size=size["hidden_size"],
        intermediate_size=4 * size["hidden_size"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        patch_size=size["patch"],
        image_size=224,
        projection_dim=size["output"],
    )
    torch.manual_seed(0)
    model = transformers.CLIPVisionModel(config).float()
    model.save_pretrained(folder / "base")
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for task in TASKS:
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(start[key]).add_(torch.randn_like(tensor), alpha=1e-3)
        model.save_pretrained(folder / task)
    return (folder / "base" / "model.safetensors").stat().st_size


def run(
    program: str, python: Path, inputs: Path, outputs: Path, scales: list[str]
) -> dict[str, float]:
    """Run a worker; its outputs stay until the next run."""
    shutil.rmtree(outputs, ignore_errors=True)
    command = [
        python if program in PEERS else sys.executable, __file__, "work", program,
        "--inputs", inputs, "--outputs", outputs, "--scales", *scales,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=offline())
    if done.returncode:
        sys.exit(f"{program} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(ours: Path, theirs: Path, inputs: Path, scale: float) -> str:
    """Say how two merged files differ, and which is nearer to the exact sum."""
    from safetensors.torch import load_file

    left, right = (load_file(path / "model.safetensors") for path in (ours, theirs))
    base, *experts = (load_file(inputs / name / "model.safetensors") for name in ("base", *TASKS))
    assert left.keys() == right.keys(), left.keys() ^ right.keys()
    equal = count = 0
    largest = our_error = their_error = 0.0
    for key, start in base.items():
        if not start.is_floating_point():
            assert left[key].equal(right[key])
            continue
        exact = start.double()
        total = sum(expert[key].double() - start.double() for expert in experts)
        exact = exact + scale * total
        equal += int((left[key] == right[key]).sum())
        count += start.numel()
        largest = max(largest, float((left[key] - right[key]).abs().max()))
        our_error = max(our_error, float((left[key].double() - exact).abs().max()))
        their_error = max(their_error, float((right[key].double() - exact).abs().max()))
    return (
        f"{equal / count:.1%} of the weights are the same bits, largest difference {largest:.1e}; "
        f"distance from the exact sum: taskgrid {our_error:.1e}, the other {their_error:.1e}"
    )


def main(args: argparse.Namespace) -> None:
    from pairing import machine

    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    python = environment(args.environment)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        inputs, outputs = Path(folder) / "inputs", Path(folder) / "outputs"
        nbytes = make_inputs(inputs, args.architecture)
        print(machine())
        print(
            f"load {os.getloadavg()[0]:.1f}; {args.architecture}, 8 experts, {nbytes / 1e6:.0f} MB each"
        )
        programs = ("copy", "taskgrid", *args.peers)
        one = {name: Measured() for name in programs}
        for turn in range(args.turns + 1):
            for name in programs:
                found = run(name, python, inputs, outputs / name, ["0.3"])
                if turn:
                    one[name].add(found)
        print("one output")
        for name, measured in one.items():
            print(f"  {name:14}{measured}  x{ratio(one['taskgrid'], measured):.2f}")
        for name in args.peers:
            print(
                f"  {name}: {compare(outputs / 'taskgrid' / '0.3', outputs / name / '0.3', inputs, 0.3)}"
            )
        scales = [f"{i / (args.lambdas - 1):.2f}" for i in range(args.lambdas)]
        many = Measured()
        few = {name: Measured() for name in args.peers}
        for _ in range(args.turns):
            found = run("taskgrid", python, inputs, outputs / "taskgrid", scales)
            many.add(found)
            for name in args.peers:
                asked = scales[1 :: max(1, args.lambdas // args.peer_lambdas)][: args.peer_lambdas]
                found = run(name, python, inputs, outputs / name, asked)
                few[name].add(found, args.lambdas / len(asked))
        print(f"{args.lambdas} outputs (peers: {args.peer_lambdas} measured, scaled)")
        print(f"  {'taskgrid':14}{many}")
        for name, measured in few.items():
            print(f"  {name:14}{measured}  x{ratio(many, measured):.2f}")


def ratio(ours: Measured, theirs: Measured) -> float:
    """Median over turns of theirs / ours."""
    pairs = zip(ours.seconds, theirs.seconds, strict=True)
    return statistics.median(other / own for own, other in pairs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.set_defaults(action=main)
    parser.add_argument("--architecture", choices=SIZES, default="ViT-B-32")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--lambdas", type=int, default=21)
    parser.add_argument(
        "--peer-lambdas",
        type=int,
        default=3,
        help="how many of the lambdas peers really merge: they share nothing between them",
    )
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of all programs")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--environment", type=Path, default=default_folder())
    parser.add_argument("--folder", type=Path, help="where files are written for a while")
    worker = parser.add_subparsers().add_parser("work")
    worker.set_defaults(action=work)
    worker.add_argument("program", choices=PROGRAMS)
    worker.add_argument("--inputs", type=Path, required=True)
    worker.add_argument("--outputs", type=Path, required=True)
    worker.add_argument("--scales", nargs="+", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    arguments.action(arguments)
