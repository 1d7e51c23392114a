rule tables:
    input:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        summary="results/tables/summary.csv",


rule grid:
    input:
        reference=run_files("results/eval/{model}/{mode}/{seed}/reference/rows.parquet"),
        rows=block_files("rows.parquet"),
    output:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        summary=report(
            "results/tables/summary.csv",
            caption="../resources/report/summary.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
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
        settings=canonical_json({"studies": E.config.studies, "tasks": E.tasks}),
        code=code("grid.py", *STUDY_MODULES),
    message:
        "collect the grid, choose lambda on validation, summarise"
    shell:
        "$PYTHON $SCRIPTS/grid.py --settings {params.settings:q} --store results/store"
        " --reference {input.reference} --rows {input.rows}"
        " --grid {output.grid} --selected {output.selected} --summary {output.summary} 2>&1 | tee {log}"
