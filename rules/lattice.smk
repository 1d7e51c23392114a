# A lattice on a budget: some merges are evaluated, the others predicted, the error is stated.
rule plan_lattice:
    input:
        followed=lambda w: settings.lattice.plan_files(E, **w).followed,
        settled=ancient(lambda w: settings.lattice.plan_files(E, **w).settled),
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
        script=script("merge.py"),
        settings=lambda w: settings.lattice.plan(E, **w),
        listing=lambda w, input: settings.lattice.plan_files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("merge.py", *settings.merge.modules(E, w.method)),
    message:
        "plan the lattice of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q} --plan {output.plan:q} 2>&1 | tee {log:q}"


rule predict:
    input:
        plan="results/merge/{model}/{mode}/{seed}/{method}/lattice.json",
        # Experts are only read to normalise by, and their rows are found in the store.
        reference=first([paths.REFERENCE_ROWS], paths.LATTICE_ROWS),
        followed=lambda w: settings.lattice.files(E, **w).followed,
        settled=ancient(lambda w: settings.lattice.files(E, **w).settled),
        proof=first(settings.evaluate.proof(E), paths.LATTICE_ROWS),
    output:
        rows="results/eval/{model}/{mode}/{seed}/{method}/lattice/rows.parquet",
        report="results/eval/{model}/{mode}/{seed}/{method}/lattice/report.json",
    log:
        "results/logs/predict/{model}/{mode}/{seed}/{method}.log",
    benchmark:
        "results/benchmarks/predict/{model}/{mode}/{seed}/{method}.tsv"
    wildcard_constraints:
        mode=one_of({run.mode for run in runs.plain_runs(E)}),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt * cost.lattice_memory(E, w.model),
        runtime=lambda w, attempt: attempt
        * cost.evaluation_minutes(E, w.model, 480, 1440),
    params:
        script=script("predict.py", *ON_DEVICE),
        settings=lambda w: settings.lattice.predict(E),
        listing=lambda w, input: settings.lattice.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("predict.py", *settings.merge.modules(E, w.method)),
    message:
        "predict the lattice of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --store results/store"
        " --plan {input.plan:q} --listing {params.listing:q} --proof {input.proof:q}"
        " --rows {output.rows:q} --report {output.report:q} 2>&1 | tee {log:q}"


rule lattice:
    input:
        rows=runs.labelled_files(paths.LATTICE_ROWS, runs.lattices(E)),
        reports=runs.labelled_files(paths.LATTICE_REPORT, runs.lattices(E)),
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
        script=script("lattice.py"),
        listing=lambda w, input: settings.lattice.listing(E, input.rows, input.reports),
        code=code("lattice.py"),
    message:
        "collect lattices on a budget"
    shell:
        "{params.script} --listing {params.listing:q}"
        " --table {output.table:q} --summary {output.reports:q} 2>&1 | tee {log:q}"
