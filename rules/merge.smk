rule merge:
    input:
        card="results/models/{model}/base.json",
        vectors=task_files(
            "results/vectors/{model}/{trained}/{seed}/{task}.json", plan_tasks
        ),
        heads=task_files("results/heads/{model}/{task}.json", plan_tasks),
        splits=task_files("results/splits/{pixels}/{task}.json", plan_tasks),
        datasets=task_files("results/data/{pixels}/{task}/dataset.json", plan_tasks),
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
        "$PYTHON $SCRIPTS/merge.py --settings {params.settings:q}"
        " --card {input.card} --vectors {input.vectors} --heads {input.heads}"
        " --splits {input.splits} --datasets {input.datasets} --plan {output.plan} 2>&1 | tee {log}"
