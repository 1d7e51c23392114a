rule figures:
    input:
        settings.figures.files(E),


# What is known of task vectors before anything is merged or evaluated.
rule conflicts:
    input:
        rules.conflict_table.output,
        settings.figures.of_table(E, "conflicts"),


rule figure:
    input:
        tables=lambda w: settings.figures.tables(E, w.figure),
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../resources/report/figure.rst",
            category=lambda w: figure_card(w.figure).category,
            labels=lambda w: {"figure": figure_card(w.figure).title},
        ),
    log:
        "results/logs/figure/{figure}.log",
    benchmark:
        "results/benchmarks/figure/{figure}.tsv"
    wildcard_constraints:
        figure=one_of(settings.figures.names(E)),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        script=script("figure.py"),
        settings=settings.figures.sheet(E),
        listing=lambda w, input: settings.figures.listing(E, w.figure, input.tables),
        caption=lambda w: figure_card(w.figure).caption,
        code=lambda w: code("figure.py", plugins.module_of("figure", w.figure)),
    message:
        "draw {wildcards.figure}"
    shell:
        "{params.script} --figure {wildcards.figure:q} --settings {params.settings:q}"
        " --listing {params.listing:q} --pdf {output.pdf:q} --png {output.png:q} 2>&1 | tee {log:q}"
