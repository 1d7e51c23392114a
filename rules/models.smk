# Models for the registry, where `tracking.models` asks for them: folders that open_clip loads.
rule register_expert:
    input:
        followed=lambda w: settings.register.expert_files(E, **w).followed,
        expert=ancient(lambda w: settings.register.expert_files(E, **w).settled),
    output:
        config="results/registered/{model}/{mode}/{seed}/expert/{task}/open_clip_config.json",
        weights="results/registered/{model}/{mode}/{seed}/expert/{task}/open_clip_model.safetensors",
    log:
        "results/logs/register/{model}/{mode}/{seed}/expert/{task}.log",
    benchmark:
        "results/benchmarks/register/{model}/{mode}/{seed}/expert/{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 3000, 4),
        runtime=30,
    params:
        script=script("register_expert.py"),
        settings=lambda w: settings.register.expert(E, **w),
        fingerprint=lambda w: E.weights_fingerprint(w.model),
        code=code("register_expert.py"),
    message:
        "write the expert for {wildcards.task} as a CLIP ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q} --expert {input.expert:q}"
        " --config {output.config:q} --weights {output.weights:q} 2>&1 | tee {log:q}"


rule register_merge:
    input:
        choices=lambda w: settings.register.choices(E, **w),
        followed=lambda w: settings.register.merge_files(E, **w).followed,
        settled=ancient(lambda w: settings.register.merge_files(E, **w).settled),
    output:
        config="results/registered/{model}/{mode}/{seed}/merge/{method}/open_clip_config.json",
        weights="results/registered/{model}/{mode}/{seed}/merge/{method}/open_clip_model.safetensors",
    log:
        "results/logs/register/{model}/{mode}/{seed}/merge/{method}.log",
    benchmark:
        "results/benchmarks/register/{model}/{mode}/{seed}/merge/{method}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt
        * cost.memory(E, w.model, 3000 + E.config.export.max_mb, 4),
        runtime=30,
    params:
        script=script("export.py"),
        settings=lambda w: settings.register.merged(E, **w),
        listing=lambda w, input: settings.register.merge_files(E, **w).listing(
            input.followed, input.settled
        ),
        fingerprint=lambda w: E.weights_fingerprint(w.model),
        code=lambda w: code("export.py", *settings.merge.modules(E, w.method)),
    message:
        "write what {wildcards.method} merges of all tasks as a CLIP ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q} --listing {params.listing:q}"
        " --choices {input.choices:q} --config {output.config:q} --weights {output.weights:q} 2>&1 | tee {log:q}"
