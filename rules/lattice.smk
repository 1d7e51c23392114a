# A lattice on a budget: some merges are evaluated, the others predicted, the error is stated.
rule plan_lattice:
    input:
        card="results/models/{model}/base.json",
        vectors=task_files("results/vectors/{model}/{trained}/{seed}/{task}.json"),
        heads=task_files("results/heads/{model}/{task}.json"),
        splits=task_files("results/splits/{pixels}/{task}.json"),
        datasets=task_files("results/data/{pixels}/{task}/dataset.json"),
    output:
        plan="results/merge/{model}/{mode}/{seed}/{method}/lattice.json",
    log:
        "results/logs/merge/{model}/{mode}/{seed}/{method}/lattice.log",
    benchmark:
        "results/benchmarks/merge/{model}/{mode}/{seed}/{method}/lattice.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=plan_lattice_settings,
        code=merge_code,
    message:
        "plan the lattice of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/merge.py --settings {params.settings:q}"
        " --card {input.card} --vectors {input.vectors} --heads {input.heads}"
        " --splits {input.splits} --datasets {input.datasets} --plan {output.plan} 2>&1 | tee {log}"


rule predict:
    input:
        plan="results/merge/{model}/{mode}/{seed}/{method}/lattice.json",
        # Experts are only read to normalise by, and their rows are found in the store.
        reference=ancient("results/eval/{model}/{mode}/{seed}/reference/rows.parquet"),
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        vectors=ancient(
            task_files("results/vectors/{model}/{trained}/{seed}/{task}.safetensors")
        ),
        experts=ancient(
            task_files(
                "results/experts/{model}/{trained}/{seed}/{task}/expert.safetensors"
            )
        ),
        heads=ancient(task_files("results/heads/{model}/{task}.safetensors")),
        splits=task_files("results/splits/{pixels}/{task}.json"),
        images=ancient(task_files("results/data/{pixels}/{task}/images.arrow")),
        proof=ancient(proof),
    output:
        rows="results/eval/{model}/{mode}/{seed}/{method}/lattice/rows.parquet",
        report="results/eval/{model}/{mode}/{seed}/{method}/lattice/report.json",
    log:
        "results/logs/predict/{model}/{mode}/{seed}/{method}.log",
    benchmark:
        "results/benchmarks/predict/{model}/{mode}/{seed}/{method}.tsv"
    wildcard_constraints:
        mode=one_of({run["mode"] for run in PLAIN_RUNS}),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lattice_memory,
        runtime=evaluation_minutes(480, 1440),
    params:
        settings=lattice_settings,
        code=lambda w: code(
            "predict.py", plugins.module_of("merger", E.method(w.method).name)
        ),
    message:
        "predict the lattice of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/predict.py --settings {params.settings:q}"
        " --device $DEVICE --threads {threads} --store results/store"
        " --plan {input.plan} --card {input.card} --base {input.base}"
        " --vectors {input.vectors} --experts {input.experts} --heads {input.heads}"
        " --splits {input.splits} --images {input.images} --proof {input.proof}"
        " --rows {output.rows} --report {output.report} 2>&1 | tee {log}"


rule lattice:
    input:
        rows=lattice_files("rows.parquet"),
        reports=lattice_files("report.json"),
    output:
        table="results/tables/lattice.parquet",
        reports="results/tables/lattice.csv",
    log:
        "results/logs/lattice.log",
    benchmark:
        "results/benchmarks/lattice.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        settings=canonical_json(LATTICES),
        code=code("lattice.py"),
    message:
        "collect lattices on a budget"
    shell:
        "$PYTHON $SCRIPTS/lattice.py --settings {params.settings:q} --rows {input.rows}"
        " --reports {input.reports} --table {output.table} --summary {output.reports} 2>&1 | tee {log}"
