rule reference:
    input:
        followed=lambda w: settings.evaluate.reference_files(E, **w).followed,
        settled=ancient(lambda w: settings.evaluate.reference_files(E, **w).settled),
        # A proof lets an evaluation begin; no row depends on it.
        proof=first(settings.evaluate.proof(E), paths.REFERENCE_ROWS),
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
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 5000, 5),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 120),
    params:
        script=script("reference.py", *ON_DEVICE),
        settings=lambda w: settings.evaluate.reference(E, **w),
        listing=lambda w, input: settings.evaluate.reference_files(E, **w).listing(
            input.followed, input.settled
        ),
        code=code("reference.py"),
    message:
        "zero-shot and every expert on every task ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --store results/store"
        " --listing {params.listing:q}"
        " --proof {input.proof:q} --rows {output.rows:q} 2>&1 | tee {log:q}"


rule eval:
    input:
        plan="results/merge/{model}/{mode}/{seed}/{method}/{block}.json",
        # Rows are found by their keys; a reference row that matters to the plan has changed the plan.
        reference=first([paths.REFERENCE_ROWS], paths.BLOCK_ROWS),
        followed=lambda w: settings.evaluate.files(E, **w).followed,
        settled=ancient(lambda w: settings.evaluate.files(E, **w).settled),
        proof=first(settings.evaluate.proof(E), paths.BLOCK_ROWS),
    output:
        rows="results/eval/{model}/{mode}/{seed}/{method}/{block}/rows.parquet",
        choices="results/eval/{model}/{mode}/{seed}/{method}/{block}/choices.json",
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
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 5000, 8, vectors=True),
        runtime=lambda w, attempt: attempt
        * cost.evaluation_minutes(E, w.model, 240, 480),
    params:
        script=script("eval.py", *ON_DEVICE),
        settings=lambda w: settings.evaluate.block(E),
        listing=lambda w, input: settings.evaluate.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("eval.py", *settings.evaluate.modules(E, w.method)),
    message:
        "evaluate block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --store results/store"
        " --plan {input.plan:q} --listing {params.listing:q} --proof {input.proof:q}"
        " --rows {output.rows:q} --choices {output.choices:q} --timing {output.timing:q} 2>&1 | tee {log:q}"


# The exact best lambda of every subset, where models are linear in their weights.
rule continuous:
    input:
        **{
            **dict(rules.eval.input.items()),
            "reference": first([paths.REFERENCE_ROWS], paths.CONTINUOUS),
            "proof": first(settings.evaluate.proof(E), paths.CONTINUOUS),
        },
        rows="results/eval/{model}/{mode}/{seed}/{method}/{block}/rows.parquet",
    output:
        table="results/eval/{model}/{mode}/{seed}/{method}/{block}/continuous.parquet",
    log:
        "results/logs/continuous/{model}/{mode}/{seed}/{method}/{block}.log",
    benchmark:
        "results/benchmarks/continuous/{model}/{mode}/{seed}/{method}/{block}.tsv"
    wildcard_constraints:
        mode=one_of({run.mode for run in runs.tangent_runs(E)}),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 5000, 8, vectors=True),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 120),
    params:
        script=script("continuous.py", *ON_DEVICE),
        settings=lambda w: settings.evaluate.block(E),
        listing=lambda w, input: settings.evaluate.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("continuous.py", *settings.merge.modules(E, w.method)),
    message:
        "exact best lambdas of block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --store results/store"
        " --plan {input.plan:q} --listing {params.listing:q} --table {output.table:q} 2>&1 | tee {log:q}"


# What answers any coefficients of a sum of task vectors, where models are linear in their weights.
rule margins:
    input:
        **{
            **dict(rules.reference.input.items()),
            "proof": first(settings.evaluate.proof(E), paths.MARGINS),
        },
        # Its passes over the images are all that this takes.
        rows=first([paths.REFERENCE_ROWS], paths.MARGINS),
    output:
        table="results/eval/{model}/{mode}/{seed}/margins.parquet",
    log:
        "results/logs/margins/{model}/{mode}/{seed}.log",
    benchmark:
        "results/benchmarks/margins/{model}/{mode}/{seed}.tsv"
    wildcard_constraints:
        mode=one_of({run.mode for run in runs.tangent_runs(E)}),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 5000, 5),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 120),
    params:
        script=script("margins.py", *ON_DEVICE),
        settings=lambda w: settings.explorer.margins(E, **w),
        listing=lambda w, input: settings.evaluate.reference_files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("margins.py", *settings.explorer.modules()),
    message:
        "margins at any coefficients ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --store results/store"
        " --listing {params.listing:q} --table {output.table:q} 2>&1 | tee {log:q}"
