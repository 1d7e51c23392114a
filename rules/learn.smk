# What a merge method learns for a subset; the plan and the evaluation of its block read it.
rule learn:
    input:
        followed=lambda w: settings.learn.files(E, **w).followed,
        settled=ancient(lambda w: settings.learn.files(E, **w).settled),
    output:
        coefficients="results/learned/{model}/{mode}/{seed}/{method}/{subset}/coefficients.json",
        tensors="results/learned/{model}/{mode}/{seed}/{method}/{subset}/tensors.safetensors",
        timing="results/learned/{model}/{mode}/{seed}/{method}/{subset}/timing.json",
    log:
        "results/logs/learn/{model}/{mode}/{seed}/{method}/{subset}.log",
    benchmark:
        "results/benchmarks/learn/{model}/{mode}/{seed}/{method}/{subset}.tsv"
    wildcard_constraints:
        method=one_of(settings.learn.methods(E)),
        subset="[^/]+",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 5000, 8, vectors=True),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 240),
    params:
        script=script("learn.py", *ON_DEVICE),
        settings=lambda w: settings.learn.coefficients(E, **w),
        listing=lambda w, input: settings.learn.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("learn.py", *settings.merge.modules(E, w.method)),
    message:
        "learn for {wildcards.subset} by {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q}"
        " --coefficients {output.coefficients:q} --tensors {output.tensors:q} --timing {output.timing:q}"
        " 2>&1 | tee {log:q}"
