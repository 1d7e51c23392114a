# Ready-made experts: brought into our layout, and put to their own task before they may be merged.
# Downloads: where compute nodes have no network, this runs on the node that calls Snakemake.
rule import_expert:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        files=lambda w: settings.experts.files(E, w.mode, w.task),
    output:
        expert="results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors",
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        history="results/experts/{model}/{mode}/{seed}/{task}/history.parquet",
        timing="results/experts/{model}/{mode}/{seed}/{task}/timing.json",
    log:
        "results/logs/import/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/import/{model}/{mode}/{seed}/{task}.tsv"
    wildcard_constraints:
        mode=one_of(E.imports),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 3000, 8),
        runtime=60,
    params:
        script=script("import_expert.py"),
        settings=lambda w: settings.experts.imported(E, **w),
        code=code("import_expert.py"),
    message:
        "bring in the expert of {wildcards.mode} for {wildcards.task}"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --card {input.card:q} --base {input.base:q} --expert {output.expert:q}"
        " --manifest {output.manifest:q} --history {output.history:q} --timing {output.timing:q} 2>&1 | tee {log:q}"


rule verify_expert:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        expert=ancient(
            "results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors"
        ),
        head_manifest="results/heads/{model}/{task}.json",
        head=ancient("results/heads/{model}/{task}.safetensors"),
        split=lambda w: f"results/splits/{E.pixels(w.model)}/{w.task}.json",
        images=ancient(
            lambda w: f"results/data/{E.pixels(w.model)}/{w.task}/images.arrow"
        ),
    output:
        verified="results/experts/{model}/{mode}/{seed}/{task}/verified.json",
    log:
        "results/logs/verify/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/verify/{model}/{mode}/{seed}/{task}.tsv"
    wildcard_constraints:
        mode=one_of(E.imports),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 5000, 5),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 60),
    params:
        script=script("verify_expert.py", *ON_DEVICE),
        settings=lambda w: settings.experts.verification(E, w.mode, w.task),
        code=code("verify_expert.py"),
    message:
        "put the expert of {wildcards.mode} to its task {wildcards.task}"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --card {input.card:q} --base {input.base:q}"
        " --expert {input.expert:q} --head {input.head:q} --split {input.split:q}"
        " --images {input.images:q} --verified {output.verified:q} 2>&1 | tee {log:q}"
