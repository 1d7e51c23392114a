from taskgrid.plots import figure_card, figure_names

FIGURES = figure_names() if E.config.figures == "all" else tuple(E.config.figures)

RUNS = [
    {"model": model, "mode": mode, "seed": seed}
    for model in E.models
    for mode in E.modes
    for seed in E.seeds
]
EXPERTS = [{**run, "task": task} for run in RUNS for task in E.tasks]


def table_files(table):
    """Files of a table that figures read, in the order of its labels."""
    if table == "history":
        pattern = "results/experts/{model}/{mode}/{seed}/{task}/history.parquet"
        return [pattern.format(**expert) for expert in EXPERTS]
    if table == "cosine":
        return ["results/vectors/{model}/{mode}/{seed}/cosine.csv".format(**run) for run in RUNS]
    return [f"results/tables/{table}.parquet"]


def figure_tables(wildcards):
    return [file for table in figure_card(wildcards.figure).tables for file in table_files(table)]


def figure_settings(wildcards):
    labels = {"history": EXPERTS, "cosine": RUNS}
    tables = [
        {"table": table, "labels": labels.get(table, [{}])}
        for table in figure_card(wildcards.figure).tables
    ]
    return canonical_json({"figure": wildcards.figure, "tables": tables})


rule figures:
    input:
        expand("results/figures/{figure}.{suffix}", figure=FIGURES, suffix=["pdf", "png"]),


rule figure:
    input:
        tables=figure_tables,
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../resources/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
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
        code=lambda wildcards: code("figure.py", figure_card(wildcards.figure).module),
    message:
        "draw {wildcards.figure}"
    shell:
        "{PYTHON} {SCRIPTS}/figure.py --settings {params.settings:q} --tables {input.tables}"
        " --pdf {output.pdf} --png {output.png} 2>&1 | tee {log}"
