rule record_expert:
    input:
        manifest="results/experts/{model}/{mode}/{seed}/{task}/expert.json",
        history="results/experts/{model}/{mode}/{seed}/{task}/history.parquet",
        timing="results/experts/{model}/{mode}/{seed}/{task}/timing.json",
    output:
        record="results/experts/{model}/{mode}/{seed}/{task}/run.json",
    log:
        "results/logs/record/{model}/{mode}/{seed}/{task}.log",
    benchmark:
        "results/benchmarks/record/{model}/{mode}/{seed}/{task}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        script=script("record_expert.py"),
        settings=lambda w: settings.experts.record(E, **w),
        code=code("record_expert.py"),
    message:
        "run record of the expert for {wildcards.task} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q}"
        " --manifest {input.manifest:q} --history {input.history:q} --timing {input.timing:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


rule record_block:
    input:
        reference="results/eval/{model}/{mode}/{seed}/reference/rows.parquet",
        rows="results/eval/{model}/{mode}/{seed}/{method}/{block}/rows.parquet",
        choices="results/eval/{model}/{mode}/{seed}/{method}/{block}/choices.json",
        timing="results/eval/{model}/{mode}/{seed}/{method}/{block}/timing.json",
        followed=lambda w: settings.merge.splits(E, **w).followed,
    output:
        record="results/eval/{model}/{mode}/{seed}/{method}/{block}/run.json",
    log:
        "results/logs/record/{model}/{mode}/{seed}/{method}/{block}.log",
    benchmark:
        "results/benchmarks/record/{model}/{mode}/{seed}/{method}/{block}.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        script=script("record_block.py"),
        settings=lambda w: settings.registry.block(E, w.mode, w.method),
        listing=lambda w, input: settings.merge.splits(E, **w).listing(
            input.followed, []
        ),
        code=code("record_block.py"),
    message:
        "run records of block {wildcards.block} of {wildcards.method} ({wildcards.mode}, seed {wildcards.seed})"
    shell:
        "{params.script} --settings {params.settings:q} --store results/store"
        " --reference {input.reference:q} --rows {input.rows:q} --choices {input.choices:q}"
        " --timing {input.timing:q} --listing {params.listing:q} --record {output.record:q} 2>&1 | tee {log:q}"


# A password in `tracking.uri` goes to the job by the environment, and so into no command line or log.
os.environ.update(settings.registry.secrets(E))


# A registry that could not be reached is tried again by the next call.
onsuccess:
    settings.registry.forget_delayed("results/registry/sync.json")


# What the registry is written from; figures and tables are attached to the grid's run.
rule sync:
    input:
        records=runs.record_files(E),
        grid="results/tables/grid.parquet",
        selected="results/tables/selected.parquet",
        attached=settings.registry.attached(E),
        models=settings.register.files(E),
    output:
        report="results/registry/sync.json",
    log:
        "results/logs/registry.log",
    benchmark:
        "results/benchmarks/registry.tsv"
    conda:
        "../envs/registry.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        script=script("registry.py"),
        settings=lambda w: settings.registry.sync(E),
        code=code("registry.py"),
    message:
        "write the experiment registry"
    shell:
        "{params.script} --settings {params.settings:q} --results results"
        " --records {input.records:q} --grid {input.grid:q} --selected {input.selected:q}"
        " --attached {input.attached:q} --models {input.models:q} --report {output.report:q} 2>&1 | tee {log:q}"


# Always runs when asked for: it brings a registry that was unreachable level with the records.
rule registry:
    input:
        **dict(rules.sync.input.items()),
        report="results/registry/sync.json",
    log:
        "results/logs/registry-replay.log",
    conda:
        "../envs/registry.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        script=script("registry.py"),
        settings=lambda w: settings.registry.sync(E),
    message:
        "bring the experiment registry level with the run records"
    shell:
        "{params.script} --settings {params.settings:q} --results results"
        " --records {input.records:q} --grid {input.grid:q} --selected {input.selected:q}"
        " --attached {input.attached:q} --models {input.models:q} --report {input.report:q} 2>&1 | tee {log:q}"
