rule taskvector:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        expert=ancient(
            "results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors"
        ),
        verified=lambda w: settings.experts.verified(E, **w),
    output:
        vector="results/vectors/{model}/{mode}/{seed}/{task}.safetensors",
        manifest="results/vectors/{model}/{mode}/{seed}/{task}.json",
        norms="results/vectors/{model}/{mode}/{seed}/{task}.norms.csv",
    log:
        "results/logs/taskvector/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/taskvector/{model}/{mode}/{seed}/{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 2000, 5),
        runtime=10,
    params:
        script=script("taskvector.py"),
        code=code("taskvector.py"),
    message:
        "task vector of {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --card {input.card:q} --base {input.base:q} --expert {input.expert:q}"
        " --vector {output.vector:q} --manifest {output.manifest:q} --norms {output.norms:q} 2>&1 | tee {log:q}"


rule conflict:
    input:
        followed=lambda w: settings.vectors.files(E, **w).followed,
        settled=ancient(lambda w: settings.vectors.files(E, **w).settled),
    output:
        table="results/vectors/{model}/{mode}/{seed}/conflicts.parquet",
    log:
        "results/logs/conflict/{model}/{mode}/{seed}.log",
    benchmark:
        "results/benchmarks/conflict/{model}/{mode}/{seed}.tsv"
    localrule: SMALL
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 2000, 2, vectors=True),
        runtime=60,
    params:
        script=script("conflict.py"),
        settings=lambda w: settings.vectors.run(**w),
        listing=lambda w, input: settings.vectors.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=code("conflict.py"),
    message:
        "conflicts between the task vectors ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q} --listing {params.listing:q}"
        " --table {output.table:q} 2>&1 | tee {log:q}"


rule conflict_table:
    input:
        runs=runs.run_files(paths.CONFLICTS, runs.merged_runs(E)),
    output:
        table="results/tables/conflicts.parquet",
    log:
        "results/logs/conflicts.log",
    benchmark:
        "results/benchmarks/conflicts.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        script=script("conflict_table.py"),
        code=code("conflict_table.py"),
    message:
        "collect the conflicts between task vectors"
    shell:
        "{params.script} --runs {input.runs:q} --table {output.table:q} 2>&1 | tee {log:q}"
