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
        mode=one_of(E.modes),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w: cost.memory(E, w.model, 6000, 10),
        runtime=lambda w: cost.minutes(E, w.model, 240),
    params:
        script=script(
            "finetune.py",
            *ON_DEVICE,
            "--checkpoint-seconds",
            E.config.finetune.checkpoint_seconds,
        ),
        settings=lambda w: settings.finetune.expert(E, **w),
        code=lambda w: code("finetune.py", *settings.finetune.modules(E, w.mode)),
    message:
        "fine-tune {wildcards.model} on {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        ""
        " --scratch results/scratch/finetune"
        " --card {input.card} --base {input.base} --head {input.head}"
        " --split {input.split} --dataset {input.dataset}"
        " --images {input.images} --originals {input.originals}"
        " --expert {output.expert} --manifest {output.manifest}"
        " --history {output.history} --timing {output.timing} 2>&1 | tee {log}"
