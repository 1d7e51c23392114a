rule finetune:
    input:
        card="results/models/{model}/base.json",
        base=ancient("results/models/{model}/base.safetensors"),
        head_manifest="results/heads/{model}/{task}.json",
        head=ancient("results/heads/{model}/{task}.safetensors"),
        split=lambda w: f"results/splits/{pixels(w)}/{w.task}.json",
        dataset=lambda w: f"results/data/{pixels(w)}/{w.task}/dataset.json",
        images=ancient(lambda w: f"results/data/{pixels(w)}/{w.task}/images.arrow"),
        originals=ancient(lambda w: f"results/data/{pixels(w)}/{w.task}/train.arrow"),
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
        mem_mb=memory(6000, 10),
        runtime=minutes(240),
    params:
        settings=finetune_settings,
        code=finetune_code,
    message:
        "fine-tune {wildcards.model} on {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "$PYTHON $SCRIPTS/finetune.py --settings {params.settings:q}"
        " --device $DEVICE --threads {threads}"
        " --scratch results/scratch/finetune --checkpoint-seconds $CHECKPOINT_SECONDS"
        " --card {input.card} --base {input.base} --head {input.head}"
        " --split {input.split} --dataset {input.dataset}"
        " --images {input.images} --originals {input.originals}"
        " --expert {output.expert} --manifest {output.manifest}"
        " --history {output.history} --timing {output.timing} 2>&1 | tee {log}"
