rule statistic:
    input:
        followed=lambda w: settings.statistics.files(E, **w).followed,
        settled=ancient(lambda w: settings.statistics.files(E, **w).settled),
    output:
        state="results/statistics/{model}/{mode}/{seed}/{label}/{task}.safetensors",
        manifest="results/statistics/{model}/{mode}/{seed}/{label}/{task}.json",
        timing="results/statistics/{model}/{mode}/{seed}/{label}/{task}.timing.json",
    log:
        "results/logs/statistic/{model}/{mode}/{seed}/{label}/{task}.log",
    benchmark:
        "results/benchmarks/statistic/{model}/{mode}/{seed}/{label}/{task}.tsv"
    wildcard_constraints:
        label=one_of(settings.statistics.labels(E, "task")),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 6000, 10),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 120),
    params:
        script=script("statistic.py", *ON_DEVICE),
        settings=lambda w: settings.statistics.statistic(E, **w),
        listing=lambda w, input: settings.statistics.files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("statistic.py", *settings.statistics.modules(E, w.label)),
    message:
        "statistic {wildcards.label} of {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q}"
        " --state {output.state:q} --manifest {output.manifest:q}"
        " --timing {output.timing:q} 2>&1 | tee {log:q}"


# Of the base: on images of several tasks, whatever the experts.
rule base_statistic:
    input:
        followed=lambda w: settings.statistics.base_files(E, **w).followed,
        settled=ancient(lambda w: settings.statistics.base_files(E, **w).settled),
    output:
        state="results/statistics/{model}/base/{label}.safetensors",
        manifest="results/statistics/{model}/base/{label}.json",
        timing="results/statistics/{model}/base/{label}.timing.json",
    log:
        "results/logs/base_statistic/{model}/{label}.log",
    benchmark:
        "results/benchmarks/base_statistic/{model}/{label}.tsv"
    wildcard_constraints:
        label=one_of(settings.statistics.labels(E, "base")),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 6000, 10),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 120),
    params:
        script=script("statistic.py", *ON_DEVICE),
        settings=lambda w: settings.statistics.base_statistic(E, **w),
        listing=lambda w, input: settings.statistics.base_files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("statistic.py", *settings.statistics.modules(E, w.label)),
    message:
        "statistic {wildcards.label} of {wildcards.model}"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --listing {params.listing:q}"
        " --state {output.state:q} --manifest {output.manifest:q}"
        " --timing {output.timing:q} 2>&1 | tee {log:q}"
