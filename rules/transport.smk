# The transport from another base to this one: once for the two of them, or for each task.
rule align:
    input:
        followed=lambda w: settings.transport.alignment_files(E, **w).followed,
        settled=ancient(lambda w: settings.transport.alignment_files(E, **w).settled),
    output:
        transport="results/alignments/{model}/{mode}/{seed}/{of}.safetensors",
        manifest="results/alignments/{model}/{mode}/{seed}/{of}.json",
    log:
        "results/logs/align/{model}/{mode}/{seed}/{of}.log",
    benchmark:
        "results/benchmarks/align/{model}/{mode}/{seed}/{of}.tsv"
    wildcard_constraints:
        mode=one_of(E.transports),
        of=one_of([settings.transport.BASES, *E.trained]),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=lambda w: GPU if settings.transport.looks(E, w.mode) else 0,
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 6000, 16),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 120),
    params:
        script=script("align.py", *ON_DEVICE),
        settings=lambda w: settings.transport.alignment(E, **w),
        listing=lambda w, input: settings.transport.alignment_files(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("align.py", *settings.transport.modules(E, w.mode)),
    message:
        "align {wildcards.of} of {wildcards.mode} with {wildcards.model} (seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q} --listing {params.listing:q}"
        " --transport {output.transport:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


# Experts of another base, brought to this one by that transport. They are checked on no task: how well
# they do there is what is asked.
rule transport:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        source_card=lambda w: settings.transport.files(E, w.mode, w.task).card,
        source_base=ancient(lambda w: settings.transport.files(E, w.mode, w.task).base),
        source_manifest=lambda w: settings.transport.files(E, w.mode, w.task).manifest,
        source_expert=ancient(
            lambda w: settings.transport.files(E, w.mode, w.task).expert
        ),
        alignment=lambda w: settings.transport.aligned(E, paths.ALIGNMENT_MANIFEST, **w),
        transport=ancient(lambda w: settings.transport.aligned(E, paths.ALIGNMENT, **w)),
    output:
        expert="results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors",
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        history="results/experts/{model}/{mode}/{seed}/{task}/history.parquet",
        timing="results/experts/{model}/{mode}/{seed}/{task}/timing.json",
    log:
        "results/logs/transport/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/transport/{model}/{mode}/{seed}/{task}.tsv"
    wildcard_constraints:
        mode=one_of(E.transports),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 3000, 16),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 60),
    params:
        script=script("transport.py"),
        settings=lambda w: settings.transport.expert(E, **w),
        code=code("transport.py"),
    message:
        "transport the expert of {wildcards.mode} for {wildcards.task} to {wildcards.model}"
    # With "=": the other run's folder may begin with a dash.
    shell:
        "{params.script} --settings {params.settings:q}"
        " --card {input.card:q} --base {input.base:q}"
        " --source-card={input.source_card:q} --source-base={input.source_base:q}"
        " --source-expert={input.source_expert:q} --transport {input.transport:q}"
        " --expert {output.expert:q}"
        " --manifest {output.manifest:q} --history {output.history:q} --timing {output.timing:q} 2>&1 | tee {log:q}"
