"""Every mistake a person would make ends in one line: where it is, which field, what to do; and nothing is computed."""

import pytest

from harness.cli import main
from tests.harness.conftest import Desk

ROW = "- Stage 2 Only:     {stages: [stage2], set: {stage2.teacher: random}, reported: [68.4, 67.5, 52.9]}"
FIRST = "- Stage 1 Only:     {stages: [stage1], reported: [70.9, 71.1, 54.2]}"


def row(text: str) -> tuple[str, str]:
    return ROW, f"- Stage 2 Only:     {{{text}}}"


def complaint(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """What `run.py plan …` says, which must be one line on stderr, with exit code 2."""
    code = main(["plan", *arguments])
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


IN_THE_TABLE = {
    "a misspelt field of a row's set": (
        row("stages: [stage2], set: {stage2.techer: random}, reported: [1, 2, 3]"),
        'table.yaml:8: row "Stage 2 Only": set.stage2.techer: no such field; did you mean "teacher"? (fields: ',
    ),
    "a misspelt section": (
        row("stages: [stage2], set: {stag2.teacher: random}"),
        'table.yaml:8: row "Stage 2 Only": set.stag2.teacher: no such section "stag2"; did you mean "stage2"?',
    ),
    "a misspelt key of a row": (
        row("stages: [stage2], sets: {stage2.teacher: random}"),
        'table.yaml:8: row "Stage 2 Only": sets: no such field; did you mean "set"? (fields: label, stages, set, ',
    ),
    "a misspelt key of the table": (("title:", "titel:"), 'table.yaml:2: titel: no such field; did you mean "title"?'),
    "a missing key": (("title: Training stage ablation\n", ""), "table.yaml:1: title: is missing; add it"),
    "a misspelt choice": (
        row("stages: [stage2], set: {stage2.teacher: randm}"),
        'table.yaml:8: row "Stage 2 Only": set.stage2.teacher: "randm" is not a valid choice; did you mean "random"? (choices: stage1, ',
    ),
    "a misspelt stage": (
        row("stages: [stag2]"),
        'table.yaml:8: row "Stage 2 Only": stages[0]: "stag2" is not a valid choice; did you mean "stage2"? (choices: sft, sft_video, stage1, stage2, joint, reflect',
    ),
    "a probability of 1.5": (
        row("stages: [stage1], set: {stage1.p: 1.5}"),
        'table.yaml:8: row "Stage 2 Only": set.stage1.p: 1.5 is out of range: must be at most 1',
    ),
    "a negative weight": (
        row("stages: [stage1], set: {stage1.lambda_bcm: -1}"),
        'table.yaml:8: row "Stage 2 Only": set.stage1.lambda_bcm: -1 is out of range: must be at least 0',
    ),
    "a word for a number": (
        row("stages: [stage1], set: {stage1.p: half}"),
        'table.yaml:8: row "Stage 2 Only": set.stage1.p: must be a number, not "half"',
    ),
    "S = 0 in a table": (
        row("stages: [stage1], set: {latent_steps: 0}"),
        'table.yaml:8: row "Stage 2 Only": set.latent_steps: 0 leaves no latent state to align; use 1 or more (0 is a control',
    ),
    "stage 2 without its teacher": (
        row("stages: [stage2]"),
        'table.yaml:8: row "Stage 2 Only": stage2.teacher is stage1 but the row has no stage1 before stage2: add stage1, or set ',
    ),
    "stages in the wrong order": (
        row("stages: [stage2, stage1]"),
        'table.yaml:8: row "Stage 2 Only": stage2.teacher is stage1 but the row has no stage1 before stage2',
    ),
    "an option of a stage that the row has not": (
        row("stages: [stage1], set: {stage2.tau: 2}"),
        'table.yaml:8: row "Stage 2 Only": set.stage2.tau: the row has no stage2 (stages: [stage1]); add it to stages or drop this',
    ),
    "an option that is never read": (
        row("stages: [stage1], set: {stage1.align: joint, stage1.p: 0.3}"),
        'row "Stage 2 Only": set.stage1.p: is never read: stage1.align is joint (table.yaml:8); set stage1.align: bernoulli too, or',
    ),
    "options that contradict each other": (
        row("stages: [stage2], set: {stage2.teacher: random, stage2.query_shift: 0}"),
        'table.yaml:8: row "Stage 2 Only": set.stage2.query_shift: query_shift: 0 with slot_fill: student is circular',
    ),
    "too few reported values": (
        row("stages: [stage1], reported: [68.4, 67.5]"),
        'table.yaml:8: row "Stage 2 Only": reported: 2 values for 3 columns (mmvp, hrbench4k, blink); write - for one that the paper',
    ),
    "a word among the reported values": (
        row("stages: [stage1], reported: [68.4, abc, 52.9]"),
        'table.yaml:8: row "Stage 2 Only": reported[1]: "abc" is not a number as a paper prints it; write its digits, - where it prints none',
    ),
    "two rows of one name": (
        (ROW, FIRST),
        'table.yaml:8: row "Stage 1 Only": a second row of this name (the first: table.yaml:7)',
    ),
    "a stage twice": (row("stages: [stage1, stage1]"), 'table.yaml:8: row "Stage 2 Only": stages: a stage is listed twice'),
    "a row that is nothing": (
        row("reported: [1, 2, 3]"),
        'table.yaml:8: row "Stage 2 Only": needs one of stages, external, delta; it has none (stages: [] is the base model)',
    ),
    "a misspelt sweep": (
        row("stages: [stage1], sweeep: {stage1.p: [0.1, 0.3]}"),
        'table.yaml:8: row "Stage 2 Only": sweeep: no such field; did you mean "sweep"?',
    ),
    "a row written as a text": (
        (ROW, "- Stage 2 Only"),
        "table.yaml:8: row 2: a row is written `- Label: {stages: […], reported: […]}`",
    ),
    "an unknown recipe": (
        ("recipe: vreflection", "recipe: vreflecton"),
        'table.yaml:4: recipe: no such recipe "vreflecton"; did you mean "vreflection"? (recipes: ',
    ),
    "an unknown recipe of a row": (
        row("recipe: lvrr, stages: [lvr]"),
        'table.yaml:8: row "Stage 2 Only": recipe: no such recipe "lvrr"; did you mean "lvr"? (recipes: lvr, visreflect, ',
    ),
    "a misspelt recipe of a row": (
        row("recpe: lvr, stages: [lvr]"),
        'table.yaml:8: row "Stage 2 Only": recpe: no such field; did you mean "recipe"? (fields: label, ',
    ),
    "a stage that the row's recipe has not": (
        row("recipe: lvr, stages: [stage1]"),
        'table.yaml:8: row "Stage 2 Only": stages: recipe lvr has no stage stage1 (its stages: sft, lvr)',
    ),
    "an option that the row's recipe has not": (
        row("recipe: lvr, stages: [lvr], set: {p: 0.3}"),
        'table.yaml:8: row "Stage 2 Only": set.p: the row has no stage with p (stages: [lvr]); add one to stages or drop this',
    ),
    "a recipe for a system that is not trained here": (
        row("recipe: lvr, external: {not_run: no weights}"),
        'table.yaml:8: row "Stage 2 Only": recipe: belongs to a row that we train (stages: …), not to external:',
    ),
    "an unknown benchmark": (
        ("[mmvp, hrbench4k, blink]", "[mmvp, hrbench, blink]"),
        'table.yaml:5: columns[1]: no such benchmark "hrbench"; did you mean "hrbench',
    ),
    "an unknown score": (
        ("[mmvp, hrbench4k, blink]", "[mmvp, hrbench4k.fps, blink]"),
        'table.yaml:5: columns[1]: hrbench4k has no score "fps"; did you mean "fsp"? (scores: overall, fsp, fcp)',
    ),
    "a claim about no row": (
        ("best: Two-stage (Ours)", "best: Two stage"),
        'table.yaml:12: claims[0]: no such row "Two stage"; did you mean "Two-stage (Ours)"?',
    ),
    "a claim of no form": (
        ("best: Two-stage (Ours)", "bets: Two-stage (Ours)"),
        'table.yaml:12: claims[0]: "bets" is not a kind of claim; did you mean "best"? (forms: best, worst, greater, ',
    ),
    "a claim on no column": (("on: all", "on: mmpv"), 'no such column "mmpv"; did you mean "mmvp"?'),
    "a tab": (("\n  - Joint", "\n\t- Joint"), "table.yaml:9: YAML syntax: a tab in the indentation; use spaces"),
    "an open bracket": (
        ("columns: [mmvp, hrbench4k, blink]", "columns: [mmvp, hrbench4k, blink"),
        "table.yaml:6: YAML syntax: ",
    ),
}


@pytest.mark.parametrize("mistake", IN_THE_TABLE)
def test_a_mistake_in_the_table_is_one_line_with_its_place(mistake, desk: Desk, capsys):
    change, expected = IN_THE_TABLE[mistake]
    said = complaint(capsys, str(desk.table(change)))
    assert expected in said


IN_THE_PROFILE = {
    "a misspelt option": (("  precision: bf16", "  precison: bf16"), 'set.precison: no such field; did you mean "precision"?'),
    "an option set and scaled": (("  steps: 0.05", "  precision: 2\n  steps: 0.05"), "precision is in set: too (profiles/mine.yaml:25); keep one"),
    "a section without an option": (("  precision: bf16", "  stage1: 4"), "set.stage1: is a section; name an option in it, as in stage1.lambda_bcm"),
    "a value that no stage may have": (("  precision: bf16", "  weight_decay: -1"), "set.weight_decay: -1 is out of range: must be at least 0"),
    "a word to scale": (("  steps: 0.05", "  schedule: 2\n  steps: 0.05"), "scale.schedule: is no number to scale"),
    "a factor of nought": (("  lr: 30", "  lr: 0"), "scale.lr: 0 is out of range: must be > 0"),
    "no such backbone": (("/base}", "/bose}"), "backbone.path: no such folder"),
    "an unknown source": (("source: local", "source: disk"), 'source: "disk" is not a valid choice (choices: local, hub)'),
    "a missing benchmark": (("  mmvp: {", "  mmpv: {"), 'benchmarks: has no entry for mmvp; add one; did you mean "mmpv"? (entries: mmpv'),
    "a missing benchmark that tables with clips replace": (("  blink: {", "  blonk: {"), 'beside_clips: "blink" stands in place of nothing'),
    "a misspelt field of a benchmark": (("{source: proxy, n: 2788}", "{source: proxy, m: 2788}"), "benchmarks.blink.m: no such field"),
    "an unknown kind of job": (("  features: {memory", "  feature: {memory"), 'did you mean "features"?'),
    "several processes for what one does": (("  mirror: {", "  mirror: {processes: 2, "), "mirror.processes: only train and evaluate"),
    "fewer GPUs than shards": (("  evaluate: {", "  evaluate: {processes: 4, gpus: 2, "), "4 processes need a GPU each, and gpus is 2"),
    "a share of a GPU that there is not": (("  evaluate: {", "  evaluate: {cache_share: 0.5, "), "evaluate.cache_share: is a share of a GPU's memory, but gpus is 0; leave it out"),
    "no such stage of ZeRO": (("  train: {", "  train: {deepspeed: zero9, "), 'resources.train.deepspeed: "zero9" is not a valid choice; did you mean "zero3"? (choices: zero1'),
    "ZeRO for no such kind of stage": (("  train: {", "  train: {deepspeed: {stage9: zero2}, "), 'resources.train.deepspeed.stage9: no such name; did you mean'),
    "the paper's protocol left out": (("[paper, stock]", "[stock]"), 'must hold "paper"'),
    "a misspelt latents mode": (("zeroed, ", "zerod, "), 'latents[1]: "zerod" is not a valid choice; did you mean "zeroed"?'),
}  # fmt: skip


@pytest.mark.parametrize("mistake", IN_THE_PROFILE)
def test_a_mistake_in_a_profile_is_one_line_with_its_place(mistake, desk: Desk, capsys):
    (old, new), expected = IN_THE_PROFILE[mistake]
    text = desk.profile("proxy")
    assert old in text
    desk.write("profiles/mine.yaml", text.replace(old, new, 1))
    said = complaint(capsys, str(desk.table()), "--profile", "mine")
    assert said.startswith("profiles/mine.yaml:") and expected in said


IN_THE_COMMAND = {
    "an unknown profile": (("--profile", "prox"), 'no such profile "prox"; did you mean "proxy"? (profiles: '),
    "a profile's file that is not there": (("--profile", "x/mine.yaml"), "no such file x/mine.yaml"),
    "an unknown row": (("--rows", "Stage 3"), '--rows: no row "Stage 3"; did you mean "Stage'),
    "an ambiguous row": (("--rows", "only"), '--rows: "only" fits Stage 1 Only and Stage 2 Only; write more of the name'),
    "a misspelt word of a row": (("--rows", "Jiont"), '--rows: no row "Jiont"; did you mean "Joint Train"?'),
    "an unknown column": (("--columns", "mmpv"), '--columns: no column "mmpv"; did you mean "mmvp"?'),
    "an unknown recipe": (("--recipe", "paper"), '--recipe: no such recipe "paper"'),
    "an override out of range": (("--set", "stage1.p=1.5"), "--set stage1.p=1.5: 1.5 is out of range: must be at most 1"),
    "an override of nothing": (("--set", "stage1.q=1"), "--set stage1.q=1: no such field"),
    "an override without a value": (("--set", "stage1.p"), "--set stage1.p: is written NAME=VALUE, as in --set stage1.p=0.3"),
    "an override that no row reads": (("--set", "stage1.align=joint", "--set", "stage1.p=0.3"), "--set stage1.p=0.3: no row uses it: stage1.align is joint"),
    "an override of a stage that no row has": (("--set", "sft.lr=1"), "--set sft.lr=1: no row uses it; it belongs to stages that no row has"),
    "S = 0 by override": (("--set", "latent_steps=0"), "--set latent_steps=0: 0 leaves no latent state to align"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", IN_THE_COMMAND)
def test_a_mistake_in_the_command_is_one_line(mistake, desk: Desk, capsys):
    arguments, expected = IN_THE_COMMAND[mistake]
    assert expected in complaint(capsys, str(desk.table()), *arguments)


def test_two_mistakes_are_two_lines(desk: Desk, capsys):
    path = desk.table(("title:", "titel:"), ("columns:", "colums:"))
    assert main(["plan", str(path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert any("titel" in line for line in lines) and any("colums" in line for line in lines)
    assert all(line.startswith("table.yaml:") for line in lines)


def test_a_file_that_is_not_there_names_its_neighbours(capsys):
    said = complaint(capsys, "experiments/table3x.yaml")
    assert said.startswith('no such experiment "experiments/table3x.yaml"; did you mean ')


def test_a_misspelt_verb_names_the_nearest(capsys):
    assert main(["plann", "x.yaml"]) == 2
    assert 'no such verb or file "plann"; did you mean "plan"?' in capsys.readouterr().err


def test_a_checkpoint_without_weights_is_found_before_anything_runs(desk: Desk, capsys):
    (desk.folder / "base" / "model.safetensors").unlink()
    said = complaint(capsys, str(desk.table()))
    assert (
        said.startswith("profiles/proxy.yaml:")
        and "backbone.path: base is no checkpoint: it has no safetensors file" in said
    )


def test_a_results_folder_that_cannot_be_written_is_found_before_anything_runs(desk: Desk, capsys):
    (desk.folder / "taken").write_text("a file")
    assert main([str(desk.table()), "--results", "taken/results", "--reports", "reports"]) == 2
    assert "taken" in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_a_reports_folder_that_cannot_be_written_is_found_before_anything_runs(desk: Desk, capsys):
    (desk.folder / "taken").write_text("a file")
    assert main([str(desk.table()), "--reports", "taken/reports"]) == 2
    assert "taken" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert not (desk.folder / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "table.yaml", "--seed", "3"], 'run.py: unrecognized arguments: --seed 3; did you mean "--seeds"?; see run.py --help'),
        (["plan", "table.yaml", "--seeds", "0"], "0 is not a number of seeds; use 1 or more"),
        (["plan", "table.yaml", "--protocols", "papr"], 'did you mean "paper"?'),
        (["report", "table.yaml", "--tabular", "hlaf"], 'did you mean "half"?'),
        (["status", "--jsn"], 'run.py: unrecognized arguments: --jsn; did you mean "--json"?'),
        (["plan"], "the following arguments are required: FILE"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(arguments, expected, desk: Desk, capsys):
    desk.table()
    with pytest.raises(SystemExit) as left:
        main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2 and expected in said and said.count("\n") == 1


def test_an_empty_folder_has_no_experiments(desk: Desk, capsys):
    (desk.folder / "empty").mkdir()
    assert complaint(capsys, "empty") == "empty: holds no experiments (*.yaml)"


def test_a_choice_that_is_typed_twice_adds_up(desk: Desk, capsys):
    assert main(["plan", str(desk.table()), "--rows", "Joint", "--rows", "Stage 1", "--columns", "mmvp"]) == 0
    assert "2 rows × 1 column" in capsys.readouterr().out


def test_a_row_is_meant_by_how_its_name_begins_before_what_it_holds(desk: Desk, capsys):
    again = "  - Not Joint Train: {stages: [stage1]}\n  - Joint Train"
    assert main(["plan", str(desk.table(("  - Joint Train", again))), "--rows", "joint"]) == 0
    assert "1 row ×" in capsys.readouterr().out
