# What each rule's parameters and inputs are, as functions of its wildcards.
from taskgrid.data.published.reading import read_description
from taskgrid.plugins.cards import figure_card
from taskgrid.provenance.digests import digest_file
from taskgrid.plugins.resources import resource_path

# Where no published numbers are asked for, "all" figures are those that need none.
FIGURES = (
    tuple(
        name
        for name in plugins.names("figure")
        if E.config.published or "published" not in figure_card(name).tables
    )
    if E.config.figures == "all"
    else tuple(E.config.figures)
)
EXPERTS = [{**run, "task": task} for run in EXPERT_RUNS for task in E.tasks]
# Tangent models, of which the exact best lambda is known.
TANGENT_RUNS = [run for run in RUNS if E.evaluation(run["mode"]) == "tangent"]


def memory(fixed, towers, vectors=False):
    """mem_mb of a rule: what Python and its batches take, and so many copies of the image tower."""

    def mem_mb(wildcards):
        tower = 4 * E.parameters(wildcards.model) / 1e6
        return round(fixed + tower * (towers + (len(E.tasks) if vectors else 0)))

    return mem_mb


def minutes(small):
    """runtime of a rule: what a model that costs up to ViT-B/32 may take, up to a day for others."""

    def runtime(wildcards):
        cost = max(1, E.operations(wildcards.model) / 4.5e9)
        return round(max(small, min(small * cost, 24 * 60)))

    return runtime


def evaluation_minutes(bf16, fp32):
    """runtime of an evaluation, more where no matrix product is in bf16."""
    return minutes(bf16 if E.config.evaluation.precision == "bf16" else fp32)


def originals_kept(task):
    """Training images kept as they were, for random crops: built-in ones are square anyway."""
    if not E.modes:
        return "none"
    return "all" if E.task(task).source == "published" else "oblong"


def dataset_settings(wildcards):
    task = E.task(wildcards.task).model_dump(exclude={"finetune"})
    if manifest := downloaded(wildcards):
        task["options"] = {**task["options"], "download": manifest}
    return canonical_json(
        {
            "task": task,
            "image_size": int(wildcards.pixels.removesuffix("px")),
            "interpolation": "bicubic",
            "keep": originals_kept(wildcards.task),
        }
    )


def decoders(wildcards):
    """Threads that decode: files of some size are worth several, drawn or stored pixels are not."""
    return 1 if E.task(wildcards.task).source in ("builtin", "npz") else 8


def downloaded(wildcards):
    """What the download of a published task's data brought; other tasks have none."""
    if E.task(wildcards.task).source != "published":
        return []
    return f"results/downloads/{wildcards.task}.json"


def download_settings(wildcards):
    return canonical_json(
        {"task": E.task(wildcards.task).model_dump(exclude={"finetune"})}
    )


def dataset_listing(wildcards):
    task = E.task(wildcards.task)
    found = {path: fingerprint(path) for path in E.files_of(wildcards.task)}
    if task.source == "published":
        # What the project itself says of the data set: class names, prompts, a split.
        names = [f"tasks/{task.dataset}.yaml"]
        if split := read_description(task.dataset).split:
            names.append(f"splits/{split}.json")
        found |= {name: digest_file(resource_path(name)) for name in names}
    return found


def dataset_code(wildcards):
    task = E.task(wildcards.task)
    modules = [plugins.module_of("source", task.source)]
    if task.source == "builtin":
        modules.append(plugins.module_of("builtin", task.name))
    if task.source == "published" and task.options["layout"] == "original":
        reader = read_description(task.dataset).original.reader
        modules.append(plugins.module_of("layout", reader))
    return code("dataset.py", *modules)


def model_settings(wildcards):
    model = E.model(wildcards.model)
    return canonical_json(
        {"architecture": model.architecture, "pretrained": model.pretrained}
    )


def finetune_settings(wildcards):
    return canonical_json(
        {
            "model": wildcards.model,
            "task": wildcards.task,
            "mode": E.mode(wildcards.mode).name,
            "mode_label": wildcards.mode,
            "mode_options": E.mode(wildcards.mode).options,
            "seed": int(wildcards.seed),
            "recipe": E.recipe(wildcards.task, wildcards.mode),
        }
    )


def finetune_code(wildcards):
    return code("finetune.py", plugins.module_of("mode", E.mode(wildcards.mode).name))


def import_files(wildcards):
    """A ready-made expert that is a file here; what lies on the hub is no input."""
    place = E.imported(wildcards.mode).place(wildcards.task)
    return [] if is_repository(place) else [place]


def import_settings(wildcards):
    spec = E.imported(wildcards.mode)
    return canonical_json(
        {
            "model": wildcards.model,
            "task": wildcards.task,
            "mode": wildcards.mode,
            "seed": int(wildcards.seed),
            "format": spec.format,
            "source": spec.place(wildcards.task),
            "file": spec.file_of(wildcards.task),
            "revision": spec.revision_of(wildcards.task),
        }
    )


def verify_settings(wildcards):
    check = E.imported(wildcards.mode).check
    return canonical_json(
        {
            "task": wildcards.task,
            "expected": check.expected.get(wildcards.task),
            "tolerance": check.tolerance,
            "batch_size": E.config.evaluation.batch_size,
            # Published numbers are of fp32, and nothing is proven of a lower precision yet.
            "precision": "fp32",
        }
    )


def verified(wildcards):
    """What must be known of an expert before its task vector is taken."""
    if wildcards.mode not in E.imports:
        return []
    return "results/experts/{model}/{mode}/{seed}/{task}/verified.json".format(
        **wildcards
    )


def expert_settings(wildcards):
    if wildcards.mode in E.imports:
        return import_settings(wildcards)
    return finetune_settings(wildcards)


def plan_tasks(wildcards):
    """Tasks that a block is evaluated on: those of its subsets, or all by config."""
    return (
        E.tasks if E.config.evaluation.outside else E.tasks_of(E.block(wildcards.block))
    )


def merge_settings(wildcards):
    method = E.method(wildcards.method)
    evaluation = E.config.evaluation
    return canonical_json(
        {
            "model": wildcards.model,
            "mode": wildcards.mode,
            "seed": int(wildcards.seed),
            "method": method.name,
            "options": method.options,
            "subsets": E.subsets(E.block(wildcards.block)),
            "lambdas": E.lambdas(wildcards.method),
            "outside": evaluation.outside,
            "curves_on": evaluation.curves_on,
            "tasks": plan_tasks(wildcards),
            "studies": STUDIES,
            "precision": evaluation.precision,
            "evaluation": E.evaluation(wildcards.mode),
            **curve_settings(),
        }
    )


def curve_settings():
    """How sweeps are interpolated; nothing where they are not, so that no plan changes by it."""
    curves = E.config.evaluation.curves
    known = {"nodes": curves.nodes, "tolerance": curves.tolerance}
    return {"curves": known} if curves.interpolate else {}


# Tangent models need no budget: their whole lattice is exact.
PLAIN_RUNS = [run for run in RUNS if run not in TANGENT_RUNS]
LATTICES = [
    {**run, "method": method}
    for run in PLAIN_RUNS
    for method in E.methods
    if E.config.lattice is not None
]


def lattice_files(name):
    pattern = "results/eval/{model}/{mode}/{seed}/{method}/lattice/{name}"
    return [pattern.format(**lattice, name=name) for lattice in LATTICES]


def plan_lattice_settings(wildcards):
    method, lattice = E.method(wildcards.method), E.config.lattice
    return canonical_json(
        {
            "model": wildcards.model,
            "mode": wildcards.mode,
            "seed": int(wildcards.seed),
            "method": method.name,
            "options": method.options,
            "design": asdict(lattice.design()),
            "lambdas": lattice.scales(),
            "outside": E.config.evaluation.outside,
            "curves_on": ["val"],
            "tasks": E.tasks,
            "studies": [],
            "precision": E.config.evaluation.precision,
        }
    )


def lattice_memory(wildcards):
    """mem_mb of a budget: an evaluation job's, the predictor's matrices, predicted rows; logits are in files."""
    lattice, tasks = E.config.lattice, len(E.tasks)
    merges = lattice.design().count(tasks)
    bytes_each = 32 * lattice.budget + 4000 * tasks
    return round(memory(5000, 8, vectors=True)(wildcards) + merges * bytes_each / 1e6)


def lattice_settings(wildcards):
    lattice = E.config.lattice
    return canonical_json(
        {
            "tasks": E.tasks,
            **pass_settings(),
            "split": lattice.split,
            "budget": asdict(lattice.spent),
        }
    )


# Runs whose precision is proven against fp32 before anything is evaluated in it.
PROVEN = [] if E.config.evaluation.precision == "fp32" else RUNS
PROOF = "results/eval/{model}/{mode}/{seed}/precision.json"


def proof(wildcards):
    """What must have passed before a run is evaluated; fp32 needs no proof."""
    return PROOF.format(**wildcards) if PROVEN else []


def precision_settings(wildcards):
    evaluation = E.config.evaluation
    label, scale = E.probe()
    return canonical_json(
        {
            "model": wildcards.model,
            "mode": wildcards.mode,
            "seed": int(wildcards.seed),
            "method": E.method(label).name,
            "options": E.method(label).options,
            "lambda": scale,
            "tasks": E.tasks,
            "precision": evaluation.precision,
            **pass_settings(),
            **evaluation.proof.model_dump(),
        }
    )


def precision_code(wildcards):
    merger = plugins.module_of("merger", E.method(E.probe()[0]).name)
    return code("precision.py", merger)


def merge_code(wildcards):
    return code(
        "merge.py", plugins.module_of("merger", E.method(wildcards.method).name)
    )


def pass_settings():
    """How images pass through the encoder."""
    return E.config.evaluation.model_dump(include={"batch_size", "compile"})


def evaluation_settings(wildcards):
    return canonical_json({"tasks": plan_tasks(wildcards), **pass_settings()})


def eval_code(wildcards):
    merger = plugins.module_of("merger", E.method(wildcards.method).name)
    return code("eval.py", merger, *STUDY_MODULES)


def reference_settings(wildcards):
    return canonical_json(
        {
            "model": wildcards.model,
            "mode": wildcards.mode,
            "seed": int(wildcards.seed),
            "tasks": E.tasks,
            **pass_settings(),
            "precision": E.config.evaluation.precision,
            "evaluation": E.evaluation(wildcards.mode),
        }
    )


def export_settings(wildcards):
    method, model = E.method(wildcards.method), E.model(wildcards.model)
    return canonical_json(
        {
            "architecture": model.architecture,
            "pretrained": model.pretrained,
            "mode": wildcards.mode,
            "seed": int(wildcards.seed),
            "method": method.name,
            "options": method.options,
            "subset": wildcards.subset,
            "lambda": wildcards.scale,
            "max_bytes": E.config.export.max_mb << 20,
        }
    )


def published_mode(mode):
    """What the literature calls a mode; ready-made experts are called by how they are evaluated."""
    if mode in E.modes:
        return E.mode(mode).name
    if mode in E.imports:
        return "linear" if E.evaluation(mode) == "tangent" else "standard"
    return mode


def grid_settings():
    known = {"studies": STUDIES, "tasks": E.tasks}
    if not E.config.published:
        return canonical_json(known)
    numbers = ["index.json", *(f"{name}.csv" for name in E.config.published)]
    return canonical_json(
        {
            **known,
            "published": E.config.published,
            "numbers": {
                name: digest_file(resource_path(f"published/{name}"))
                for name in numbers
            },
            "models": {
                model.name: {
                    "architecture": model.architecture,
                    "pretrained": model.pretrained,
                }
                for model in E.config.models
            },
            "modes": {run["mode"]: published_mode(run["mode"]) for run in RUNS},
            "datasets": {task: E.task(task).dataset for task in E.tasks},
        }
    )


def table_files(table):
    """Files of a table that figures read, in the order of its labels."""
    if table == "history":
        pattern = "results/experts/{model}/{mode}/{seed}/{task}/history.parquet"
        return [pattern.format(**expert) for expert in EXPERTS]
    if table == "cosine":
        return [
            "results/vectors/{model}/{mode}/{seed}/cosine.csv".format(**run)
            for run in EXPERT_RUNS
        ]
    suffix = "csv" if table == "published" else "parquet"
    return [f"results/tables/{table}.{suffix}"]


def figure_tables(wildcards):
    return [
        file
        for table in figure_card(wildcards.figure).tables
        for file in table_files(table)
    ]


def figure_settings(wildcards):
    labels = {"history": EXPERTS, "cosine": EXPERT_RUNS}
    tables = [
        {"table": table, "labels": labels.get(table, [{}])}
        for table in figure_card(wildcards.figure).tables
    ]
    return canonical_json({"figure": wildcards.figure, "tables": tables})


def registry_settings(wildcards):
    # A tracking URI may hold a password, and where a grid was computed is no part of what it is.
    # Where nothing is to be proven, what a proof would need is none either.
    hidden = {
        "tracking": True,
        "device": True,
        **({} if PROVEN else {"evaluation": {"proof"}}),
    }
    shown = E.config.model_dump(mode="json", exclude=hidden)
    return canonical_json({**E.config.tracking.model_dump(), "config": shown})


def forget_delayed_sync(report):
    if Path(report).exists() and read_json(report)["status"] != "level":
        Path(report).unlink()
