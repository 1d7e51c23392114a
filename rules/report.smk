# One page for people. What Snakemake's own report says (--report) stands beside it, in provenance.html.
rule report:
    input:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        figures=settings.report.pictures(E),
        tables=settings.report.tables(E),
    output:
        page="results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.table_memory(E),
        runtime=30,
    params:
        script=script("report.py"),
        settings=settings.report.page(E),
        code=code("report.py"),
    message:
        "the report"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --grid {input.grid:q} --selected {input.selected:q} --page {output.page:q}"
        " --figures {input.figures:q} --tables {input.tables:q} 2>&1 | tee {log:q}"
