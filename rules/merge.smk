def plan_tasks(wildcards):
    """Tasks that a block is evaluated on: those of its subsets, or all by config."""
    return E.tasks if E.config.evaluation.outside else block_tasks(wildcards)


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
            "merged": block_tasks(wildcards),
            "studies": E.config.studies,
            "precision": evaluation.precision,
        }
    )


def merge_code(wildcards):
    return code("merge.py", plugins.module_of("merger", E.method(wildcards.method).name))



rule merge:
    input:
        card="results/models/{model}/base.json",
        vectors=task_files("results/vectors/{model}/{mode}/{seed}/{task}.json", block_tasks),
        heads=task_files("results/heads/{model}/{task}.json", plan_tasks),
        splits=split_files(plan_tasks),
        datasets=dataset_files("dataset.json", plan_tasks),
    output:
        plan="results/merge/{model}/{mode}/{seed}/{method}/{block}.json",
    log:
        "results/logs/merge/{model}/{mode}/{seed}/{method}/{block}.log",
    benchmark:
        "results/benchmarks/merge/{model}/{mode}/{seed}/{method}/{block}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=merge_settings,
        code=merge_code,
    message:
        "plan block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{PYTHON} {SCRIPTS}/merge.py --settings {params.settings:q}"
        " --card {input.card} --vectors {input.vectors} --heads {input.heads}"
        " --splits {input.splits} --datasets {input.datasets} --plan {output.plan} 2>&1 | tee {log}"
