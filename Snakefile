from snakemake.utils import min_version

min_version("9.20")


report: "resources/report/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/finetune.smk"
include: "rules/experts.smk"
include: "rules/transport.smk"
include: "rules/vectors.smk"
include: "rules/statistics.smk"
include: "rules/learn.smk"
include: "rules/merge.smk"
include: "rules/precision.smk"
include: "rules/evaluate.smk"
include: "rules/features.smk"
include: "rules/studies.smk"
include: "rules/lattice.smk"
include: "rules/export.smk"
include: "rules/models.smk"
include: "rules/figures.smk"
include: "rules/explorer.smk"
include: "rules/report.smk"
include: "rules/registry.smk"
include: "rules/doctor.smk"


# What takes less than a queue does, and no GPU, runs where Snakemake does.
localrules:
    all,
    download,
    import_expert,
    experts,
    split,
    taskvector,
    conflicts,
    conflict_table,
    merge,
    plan_lattice,
    lattice,
    grid,
    study,
    tables,
    figure,
    figures,
    report,
    explorer,
    continuous_table,
    precision_table,
    record_expert,
    record_block,
    registry,
    sync,
    doctor,


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
        rules.report.output,
        rules.explorer.output,
        "results/registry/sync.json",


rule experts:
    input:
        runs.labelled_files(paths.EXPERT_RECORD, runs.experts(E)),


# What a study comes to is a target by the study's name.
for label in filter(str.isidentifier, E.studies):
    if workflow.is_rule(workflow.modifier.modify_rulename(label)):
        raise WorkflowError(
            f"studies: {label!r} is the name of a rule; give the study another label"
        )

    rule:
        name:
            label
        input:
            settings.figures.of_study(E, label),
