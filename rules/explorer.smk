# One page in which the grid is looked at by hand: no server, no network.
rule explorer:
    input:
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        margins=settings.explorer.margin_files(E),
    output:
        page="results/explorer.html",
    log:
        "results/logs/explorer.log",
    benchmark:
        "results/benchmarks/explorer.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.table_memory(E),
        runtime=30,
    params:
        script=script("explorer.py"),
        settings=settings.explorer.page(E, workflow.overwrite_configfiles),
        listing=lambda w, input: settings.explorer.listing(E, input.margins),
        code=code("explorer.py"),
    message:
        "the page in which the grid is explored"
    shell:
        "{params.script} --settings {params.settings:q} --listing {params.listing:q}"
        " --grid {input.grid:q} --selected {input.selected:q} --page {output.page:q} 2>&1 | tee {log:q}"
