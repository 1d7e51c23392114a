# A reduced precision is proven against fp32 before anything is evaluated in it.
rule precision:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        vector_manifests=task_files(
            "results/vectors/{model}/{trained}/{seed}/{task}.json"
        ),
        vectors=ancient(
            task_files("results/vectors/{model}/{trained}/{seed}/{task}.safetensors")
        ),
        experts=ancient(
            task_files(
                "results/experts/{model}/{trained}/{seed}/{task}/expert.safetensors"
            )
        ),
        head_manifests=task_files("results/heads/{model}/{task}.json"),
        heads=ancient(task_files("results/heads/{model}/{task}.safetensors")),
        splits=task_files("results/splits/{pixels}/{task}.json"),
        images=ancient(task_files("results/data/{pixels}/{task}/images.arrow")),
        datasets=task_files("results/data/{pixels}/{task}/dataset.json"),
    output:
        proof=PROOF,
    log:
        "results/logs/precision/{model}/{mode}/{seed}.log",
    benchmark:
        "results/benchmarks/precision/{model}/{mode}/{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory(5000, 8, vectors=True),
        runtime=minutes(60),
    params:
        settings=precision_settings,
        code=precision_code,
    message:
        "prove the precision against fp32 ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/precision.py --settings {params.settings:q}"
        " --device $DEVICE --threads {threads} --card {input.card} --base {input.base}"
        " --vector-manifests {input.vector_manifests} --vectors {input.vectors}"
        " --experts {input.experts} --head-manifests {input.head_manifests} --heads {input.heads}"
        " --splits {input.splits} --images {input.images} --datasets {input.datasets}"
        " --proof {output.proof} 2>&1 | tee {log}"


rule precision_table:
    input:
        proofs=run_files(PROOF, PROVEN),
    output:
        table="results/tables/precision.csv",
        page=report(
            "results/tables/precision.html",
            caption="../resources/report/precision.rst",
            category="Tables",
            labels={"table": "precision against fp32"},
        ),
    log:
        "results/logs/precision.log",
    benchmark:
        "results/benchmarks/precision.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=canonical_json(PROVEN),
        code=code("precision_table.py"),
    message:
        "collect the proofs of the precision"
    shell:
        "$PYTHON $SCRIPTS/precision_table.py --settings {params.settings:q} --proofs {input.proofs}"
        " --table {output.table} --page {output.page} 2>&1 | tee {log}"
