rule tables:
    input:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        summary="results/tables/summary.csv",
        published="results/tables/published.csv",
        continuous="results/tables/continuous.parquet" if TANGENT_RUNS else [],
        lattice="results/tables/lattice.parquet" if LATTICES else [],
        precision=rules.precision_table.output if PROVEN else [],


rule grid:
    input:
        reference=run_files("results/eval/{model}/{mode}/{seed}/reference/rows.parquet"),
        rows=block_files("rows.parquet"),
    output:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        summary="results/tables/summary.csv",
        published="results/tables/published.csv",
    log:
        "results/logs/grid.log",
    benchmark:
        "results/benchmarks/grid.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=grid_settings(),
        code=code("grid.py", *STUDY_MODULES),
    message:
        "collect the grid, choose lambda on validation, summarise"
    shell:
        "$PYTHON $SCRIPTS/grid.py --settings {params.settings:q} --store results/store"
        " --reference {input.reference} --rows {input.rows}"
        " --grid {output.grid} --selected {output.selected} --summary {output.summary}"
        " --published {output.published} 2>&1 | tee {log}"


rule pages:
    input:
        summary="results/tables/summary.csv",
        selected="results/tables/selected.parquet",
    output:
        summary=report(
            "results/tables/summary.html",
            caption="../resources/report/summary.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
        selected=report(
            "results/tables/selected.html",
            caption="../resources/report/selected.rst",
            category="Tables",
            labels={"table": "chosen points"},
        ),
    log:
        "results/logs/pages.log",
    benchmark:
        "results/benchmarks/pages.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code("pages.py"),
    message:
        "tables as pages for the report"
    shell:
        "$PYTHON $SCRIPTS/pages.py --tables {input.summary} {input.selected}"
        " --pages {output.summary} {output.selected} 2>&1 | tee {log}"


rule continuous_table:
    input:
        blocks=block_files("continuous.parquet", TANGENT_RUNS),
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
        code=code("continuous_table.py"),
    message:
        "collect the exact best lambdas"
    shell:
        "$PYTHON $SCRIPTS/continuous_table.py --blocks {input.blocks} --table {output.table} 2>&1 | tee {log}"
