rule tables:
    input:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        summary="results/tables/summary.csv",
        published="results/tables/published.csv",
        continuous="results/tables/continuous.parquet" if runs.tangent_runs(E) else [],
        lattice="results/tables/lattice.parquet" if runs.lattices(E) else [],
        precision=rules.precision_table.output if runs.proven_runs(E) else [],
        pairs="results/tables/pairs.csv",
        conflicts=rules.conflict_table.output,
        own=settings.studies.every_table(E),


rule grid:
    input:
        reference=runs.run_files(paths.REFERENCE_ROWS, E.runs),
        rows=runs.block_files(E, paths.BLOCK_ROWS, E.runs),
        choices=runs.block_files(E, paths.BLOCK_CHOICES, E.runs),
        costs=settings.tables.cost_files(E),
    output:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        summary="results/tables/summary.csv",
        pairs="results/tables/pairs.csv",
        costs="results/tables/costs.csv",
        published="results/tables/published.csv",
    log:
        "results/logs/grid.log",
    benchmark:
        "results/benchmarks/grid.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.table_memory(E),
        runtime=30,
    params:
        script=script("grid.py"),
        settings=settings.tables.grid(E),
        listing=lambda w, input: settings.tables.cost_listing(E, input.costs),
        code=code("grid.py"),
    message:
        "collect the grid and the chosen points, summarise"
    shell:
        "{params.script} --settings {params.settings:q} --listing {params.listing:q}"
        " --store results/store --reference {input.reference:q} --rows {input.rows:q} --choices {input.choices:q}"
        " --grid {output.grid:q} --selected {output.selected:q} --summary {output.summary:q}"
        " --pairs {output.pairs:q} --costs {output.costs:q} --published {output.published:q} 2>&1 | tee {log:q}"


# A table of a study's own; what it reads is stored with the grid, or was seen by a rule of its own.
rule study:
    input:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        costs="results/tables/costs.csv",
        measured=lambda w: settings.studies.measured(E, w.study, w.table),
    output:
        table="results/tables/{study}/{table}.parquet",
    log:
        "results/logs/study/{study}/{table}.log",
    benchmark:
        "results/benchmarks/study/{study}/{table}.tsv"
    wildcard_constraints:
        study=one_of(E.studies),
        table="[^/]+",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.table_memory(E),
        runtime=60,
    params:
        script=script("study.py"),
        settings=lambda w: settings.studies.settings(E, w.study),
        code=lambda w: code("study.py", settings.studies.module(E, w.study)),
    message:
        "table {wildcards.table} of the study {wildcards.study}"
    shell:
        "{params.script} --settings {params.settings:q} --store results/store"
        " --grid {input.grid:q} --selected {input.selected:q} --costs {input.costs:q}"
        " --measured {input.measured:q} --name {wildcards.table:q} --table {output.table:q} 2>&1 | tee {log:q}"


rule continuous_table:
    input:
        blocks=runs.block_files(E, paths.CONTINUOUS, runs.tangent_runs(E)),
    output:
        table="results/tables/continuous.parquet",
    log:
        "results/logs/continuous.log",
    benchmark:
        "results/benchmarks/continuous.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        script=script("continuous_table.py"),
        code=code("continuous_table.py"),
    message:
        "collect the exact best lambdas"
    shell:
        "{params.script} --blocks {input.blocks:q} --table {output.table:q} 2>&1 | tee {log:q}"
