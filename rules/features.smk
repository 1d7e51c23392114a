# A look inside the networks of a run, where the study `features` asks for it.
rule watch:
    input:
        choices=lambda w: settings.features.choices(E, **w),
        followed=lambda w: settings.features.files(E, **w).followed,
        settled=ancient(lambda w: settings.features.files(E, **w).settled),
    output:
        norms="results/features/{model}/{mode}/{seed}/{study}/norms.parquet",
        pixels="results/features/{model}/{mode}/{seed}/{study}/pixels.parquet",
        similarity="results/features/{model}/{mode}/{seed}/{study}/similarity.parquet",
        bias="results/features/{model}/{mode}/{seed}/{study}/bias.parquet",
        weights="results/features/{model}/{mode}/{seed}/{study}/weights.parquet",
    log:
        "results/logs/watch/{model}/{mode}/{seed}/{study}.log",
    benchmark:
        "results/benchmarks/watch/{model}/{mode}/{seed}/{study}.tsv"
    wildcard_constraints:
        mode=one_of({run.mode for run in runs.plain_runs(E)}),
        study=one_of(settings.features.labels(E)),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt
        * cost.memory(
            E,
            w.model,
            8000,
            8 + settings.features.networks(E, w.mode, w.study),
            vectors=True,
        ),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 240),
    params:
        script=script("watch.py", *ON_DEVICE),
        settings=lambda w: settings.features.run(E, **w),
        listing=lambda w, input: settings.features.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("watch.py", *settings.features.modules(E, w.mode, w.study)),
    message:
        "look inside the networks ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q} --choices {input.choices:q}"
        " --norms {output.norms:q} --pixels {output.pixels:q} --similarity {output.similarity:q}"
        " --bias {output.bias:q} --weights {output.weights:q} 2>&1 | tee {log:q}"
