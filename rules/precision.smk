# A reduced precision is proven against fp32 before anything is evaluated in it.
rule precision:
    input:
        followed=lambda w: settings.precision.files(E, **w).followed,
        settled=ancient(lambda w: settings.precision.files(E, **w).settled),
    output:
        proof="results/eval/{model}/{mode}/{seed}/precision.json",
    log:
        "results/logs/precision/{model}/{mode}/{seed}.log",
    benchmark:
        "results/benchmarks/precision/{model}/{mode}/{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 5000, 8, vectors=True),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 60),
    params:
        script=script("precision.py", *ON_DEVICE),
        settings=lambda w: settings.precision.proof(E, **w),
        listing=lambda w, input: settings.precision.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("precision.py", *settings.precision.modules(E)),
    message:
        "prove the precision against fp32 ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q}"
        " --proof {output.proof:q} 2>&1 | tee {log:q}"


rule precision_table:
    input:
        proofs=runs.run_files(paths.PROOF, runs.proven_runs(E)),
    output:
        table="results/tables/precision.csv",
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
        script=script("precision_table.py"),
        listing=lambda w, input: settings.precision.listing(E, input.proofs),
        code=code("precision_table.py"),
    message:
        "collect the proofs of the precision"
    shell:
        "{params.script} --listing {params.listing:q}"
        " --table {output.table:q} 2>&1 | tee {log:q}"
