rule figures:
    input:
        expand(
            "results/figures/{figure}.{suffix}", figure=FIGURES, suffix=["pdf", "png"]
        ),


rule figure:
    input:
        tables=figure_tables,
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../resources/report/figure.rst",
            category=lambda wildcards: figure_card(wildcards.figure).category,
            labels=lambda wildcards: {"figure": figure_card(wildcards.figure).title},
        ),
    log:
        "results/logs/figure/{figure}.log",
    benchmark:
        "results/benchmarks/figure/{figure}.tsv"
    wildcard_constraints:
        figure=one_of(FIGURES),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=figure_settings,
        caption=lambda wildcards: figure_card(wildcards.figure).caption,
        code=lambda wildcards: code("figure.py", plugins.module_of("figure", wildcards.figure)),
    message:
        "draw {wildcards.figure}"
    shell:
        "$PYTHON $SCRIPTS/figure.py --settings {params.settings:q} --tables {input.tables}"
        " --pdf {output.pdf} --png {output.png} 2>&1 | tee {log}"
