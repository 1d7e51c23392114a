rule reference:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        manifests=task_files(
            "results/experts/{model}/{trained}/{seed}/{task}/expert.json"
        ),
        experts=ancient(
            task_files(
                "results/experts/{model}/{trained}/{seed}/{task}/expert.safetensors"
            )
        ),
        heads=ancient(task_files("results/heads/{model}/{task}.safetensors")),
        head_manifests=task_files("results/heads/{model}/{task}.json"),
        splits=task_files("results/splits/{pixels}/{task}.json"),
        images=ancient(task_files("results/data/{pixels}/{task}/images.arrow")),
        datasets=task_files("results/data/{pixels}/{task}/dataset.json"),
        # A proof lets an evaluation begin; no row depends on it.
        proof=ancient(proof),
    output:
        rows="results/eval/{model}/{mode}/{seed}/reference/rows.parquet",
    log:
        "results/logs/reference/{model}/{mode}/{seed}.log",
    benchmark:
        "results/benchmarks/reference/{model}/{mode}/{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory(5000, 5),
        runtime=minutes(120),
    params:
        settings=reference_settings,
        code=code("reference.py"),
    message:
        "zero-shot and every expert on every task ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/reference.py --settings {params.settings:q}"
        " --device $DEVICE --threads {threads} --store results/store"
        " --card {input.card} --base {input.base} --experts {input.experts}"
        " --manifests {input.manifests} --heads {input.heads} --head-manifests {input.head_manifests}"
        " --splits {input.splits} --images {input.images} --datasets {input.datasets}"
        " --proof {input.proof} --rows {output.rows} 2>&1 | tee {log}"


rule eval:
    input:
        plan="results/merge/{model}/{mode}/{seed}/{method}/{block}.json",
        # Rows are found by their keys; a reference row that matters to the plan has changed the plan.
        reference=ancient("results/eval/{model}/{mode}/{seed}/reference/rows.parquet"),
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        vectors=ancient(
            task_files(
                "results/vectors/{model}/{trained}/{seed}/{task}.safetensors",
                plan_tasks,
            )
        ),
        experts=ancient(
            task_files(
                "results/experts/{model}/{trained}/{seed}/{task}/expert.safetensors",
                plan_tasks,
            )
        ),
        heads=ancient(
            task_files("results/heads/{model}/{task}.safetensors", plan_tasks)
        ),
        splits=task_files("results/splits/{pixels}/{task}.json", plan_tasks),
        images=ancient(
            task_files("results/data/{pixels}/{task}/images.arrow", plan_tasks)
        ),
        proof=ancient(proof),
    output:
        rows="results/eval/{model}/{mode}/{seed}/{method}/{block}/rows.parquet",
        timing="results/eval/{model}/{mode}/{seed}/{method}/{block}/timing.json",
    log:
        "results/logs/eval/{model}/{mode}/{seed}/{method}/{block}.log",
    benchmark:
        "results/benchmarks/eval/{model}/{mode}/{seed}/{method}/{block}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory(5000, 8, vectors=True),
        runtime=evaluation_minutes(240, 960),
    params:
        settings=evaluation_settings,
        code=eval_code,
    message:
        "evaluate block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/eval.py --settings {params.settings:q}"
        " --device $DEVICE --threads {threads} --store results/store"
        " --plan {input.plan} --card {input.card} --base {input.base}"
        " --vectors {input.vectors} --experts {input.experts} --heads {input.heads}"
        " --splits {input.splits} --images {input.images} --proof {input.proof}"
        " --rows {output.rows} --timing {output.timing} 2>&1 | tee {log}"


# The exact best lambda of every subset, where models are linear in their weights.
rule continuous:
    input:
        **dict(rules.eval.input.items()),
        rows="results/eval/{model}/{mode}/{seed}/{method}/{block}/rows.parquet",
    output:
        table="results/eval/{model}/{mode}/{seed}/{method}/{block}/continuous.parquet",
    log:
        "results/logs/continuous/{model}/{mode}/{seed}/{method}/{block}.log",
    benchmark:
        "results/benchmarks/continuous/{model}/{mode}/{seed}/{method}/{block}.tsv"
    wildcard_constraints:
        mode=one_of({run["mode"] for run in TANGENT_RUNS}),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory(5000, 8, vectors=True),
        runtime=minutes(120),
    params:
        settings=evaluation_settings,
        code=lambda w: code(
            "continuous.py", plugins.module_of("merger", E.method(w.method).name)
        ),
    message:
        "exact best lambdas of block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/continuous.py --settings {params.settings:q}"
        " --device $DEVICE --threads {threads} --store results/store"
        " --plan {input.plan} --card {input.card} --base {input.base}"
        " --vectors {input.vectors} --experts {input.experts} --heads {input.heads}"
        " --splits {input.splits} --images {input.images} --table {output.table} 2>&1 | tee {log}"
