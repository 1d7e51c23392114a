# Experts of another base, brought to this one by an aligner. They are checked on no task: how well they
# do there is what is asked.
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
        code=lambda w: code("transport.py", *settings.transport.modules(E, w.mode)),
    message:
        "transport the expert of {wildcards.mode} for {wildcards.task} to {wildcards.model}"
    # With "=": the other run's folder may begin with a dash.
    shell:
        "{params.script} --settings {params.settings:q}"
        " --card {input.card:q} --base {input.base:q}"
        " --source-card={input.source_card:q} --source-base={input.source_base:q}"
        " --source-expert={input.source_expert:q} --expert {output.expert:q}"
        " --manifest {output.manifest:q} --history {output.history:q} --timing {output.timing:q} 2>&1 | tee {log:q}"
