rule finetune:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        head_manifest="results/heads/{model}/{task}.json",
        head=ancient("results/heads/{model}/{task}.safetensors"),
        split=lambda w: f"results/splits/{E.pixels(w.model)}/{w.task}.json",
        dataset=lambda w: f"results/data/{E.pixels(w.model)}/{w.task}/dataset.json",
        images=ancient(
            lambda w: f"results/data/{E.pixels(w.model)}/{w.task}/images.arrow"
        ),
        originals=ancient(
            lambda w: f"results/data/{E.pixels(w.model)}/{w.task}/train.arrow"
        ),
        followed=lambda w: settings.finetune.others(E, **w).followed,
        settled=ancient(lambda w: settings.finetune.others(E, **w).settled),
    output:
        expert="results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors",
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        history="results/experts/{model}/{mode}/{seed}/{task}/history.parquet",
        timing="results/experts/{model}/{mode}/{seed}/{task}/timing.json",
    log:
        "results/logs/finetune/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/finetune/{model}/{mode}/{seed}/{task}.tsv"
    wildcard_constraints:
        mode=one_of(settings.finetune.modes(E, factors=False)),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: attempt * cost.memory(E, w.model, 6000, 10),
        runtime=lambda w, attempt: attempt * cost.minutes(E, w.model, 240),
    params:
        script=script(
            "finetune.py",
            *ON_DEVICE,
            "--checkpoint-seconds",
            E.config.finetune.checkpoint_seconds,
            *settings.registry.live(E),
        ),
        settings=lambda w: settings.finetune.expert(E, **w),
        listing=lambda w, input: settings.finetune.others(E, **w).listing(
            input.followed, input.settled
        ),
        code=lambda w: code("finetune.py", *settings.finetune.modules(E, w.mode)),
    message:
        "fine-tune {wildcards.model} on {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q} --listing {params.listing:q}"
        " --scratch results/scratch/finetune"
        " --card {input.card:q} --base {input.base:q} --head {input.head:q}"
        " --split {input.split:q} --dataset {input.dataset:q}"
        " --images {input.images:q} --originals {input.originals:q}"
        " --expert {output.expert:q} --manifest {output.manifest:q}"
        " --history {output.history:q} --timing {output.timing:q} 2>&1 | tee {log:q}"


# The same, in modes that keep factors beside the expert.
use rule finetune as finetune_factors with:
    output:
        expert="results/experts/{model}/{mode}/{seed}/{task}/expert.safetensors",
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        history="results/experts/{model}/{mode}/{seed}/{task}/history.parquet",
        timing="results/experts/{model}/{mode}/{seed}/{task}/timing.json",
        factors="results/experts/{model}/{mode}/{seed}/{task}/factors.safetensors",
    wildcard_constraints:
        mode=one_of(settings.finetune.modes(E, factors=True)),
