"""Table 3(c) as a graph: what is shared is computed once, and every number knows its jobs."""

from collections import Counter

import pytest

from harness.jobs import Job
from harness.plan import Plan, merged, plan_experiment
from harness.spec.files import EXPERIMENTS
from tests.harness.conftest import Desk, fake_digest

ROWS = ("Stage 1 Only", "Stage 2 Only", "Joint Train", "Two-stage (Ours)")


@pytest.fixture
def plan(desk: Desk) -> Plan:
    return planned(desk)


def planned(desk: Desk, profile: str = "proxy", **choices) -> Plan:
    return plan_experiment(desk.table(), profile, tasks=fake_digest, **{"seeds": 1, **choices})


def kinds(plan: Plan) -> Counter:
    return Counter(job.kind for job in plan.graph)


def trained(plan: Plan, row: str, seed: int = 0) -> Job:
    job = plan.checkpoints[row][seed]
    assert isinstance(job, Job)
    return job


def test_four_rows_are_four_trainings(plan: Plan):
    assert kinds(plan) == {"data": 1, "features": 1, "mirror": 3, "train": 4, "evaluate": 4 * (2 * 5 + 1) + 2 * 2 + 1}


def test_stage_one_only_is_the_first_stage_of_two_stage(plan: Plan):
    alone, both = trained(plan, "Stage 1 Only"), trained(plan, "Two-stage (Ours)")
    assert both.inputs["init"] == alone and both.inputs["teacher"] == alone
    assert plan.rows_of(alone) == ("Stage 1 Only", "Two-stage (Ours)")


def test_the_other_rows_start_from_the_base_model(plan: Plan):
    for row in ("Stage 1 Only", "Stage 2 Only", "Joint Train"):
        assert set(trained(plan, row).inputs) == {"data", "features", "init"}
        assert not isinstance(trained(plan, row).inputs["init"], Job)


def test_two_seeds_double_the_trainings_and_nothing_else(plan: Plan, desk: Desk):
    two = planned(desk, seeds=2)
    assert kinds(two)["train"] == 8 and kinds(two)["data"] == kinds(two)["features"] == 1
    assert set(plan.graph) <= set(two.graph)


def test_a_part_of_a_table_has_the_same_keys(plan: Plan, desk: Desk):
    part = planned(desk, rows=["stage 1"], columns=["mmvp"], protocols=["paper"], latents=["own"])
    assert part.partial and not part.overridden and part.name == plan.name
    assert set(part.graph) < set(plan.graph) and kinds(part)["train"] == 1


def test_a_cell_knows_its_evaluations_by_seed_and_latents(desk: Desk):
    plan = planned(desk, seeds=2)
    cell = plan.cell("Joint Train", "mmvp")
    assert set(cell.jobs) == {(0, mode) for mode in ("own", "zeroed", "shuffled", "oracle")} | {(1, "own")}
    assert set(cell.by_seed()) == {0, 1} and cell.by_seed()[1].inputs["checkpoint"] == trained(plan, "Joint Train", 1)
    assert {job.kind for job in plan.jobs_of(cell)} == {"data", "features", "train", "mirror", "evaluate"}
    assert set(plan.cell("Joint Train", "mmvp", "stock").jobs) == {(0, "own")}


def test_other_latents_and_protocols_are_asked_for_on_side_benchmarks_alone(plan: Plan, desk: Desk):
    assert set(plan.cell("Joint Train", "blink").jobs) == {(0, "own")}
    assert ("Joint Train", "blink", "stock") not in {(cell.row, cell.column.name, cell.protocol) for cell in plan.cells}
    asked = planned(desk, columns=["blink"], protocols=["stock"])
    assert set(asked.cell("Joint Train", "blink", "stock").jobs) == {(0, "own")}
    assert {mode for _, mode in planned(desk, latents=["oracle"]).cell("Joint Train", "blink").jobs} == {"own", "oracle"}


def test_without_side_seeds_every_seed_gets_every_mode_and_protocol(desk: Desk):
    desk.write("profiles/mine.yaml", desk.profile("proxy").replace("side_seeds: 1", ""))
    plan = planned(desk, "mine", seeds=2)
    assert set(plan.cell("Joint Train", "mmvp").jobs) == {(s, m) for s in (0, 1) for m in ("own", "zeroed", "shuffled", "oracle")}
    assert set(plan.cell("Joint Train", "mmvp", "stock").jobs) == {(0, "own"), (1, "own")}


def test_only_the_training_seed_differs_between_seeds(desk: Desk):
    plan = planned(desk, seeds=2)
    first, second = trained(plan, "Joint Train", 0), trained(plan, "Joint Train", 1)
    assert {**first.payload, "seed": 1} == second.payload and first.inputs == second.inputs


def test_the_base_model_is_measured_beside_a_proxy_table(plan: Plan):
    assert {name: set(jobs) for name, jobs in plan.base.items()} == {
        "mmvp": {"paper", "stock"}, "hrbench4k": {"paper", "stock"}, "blink": {"paper"}
    }
    assert all(not isinstance(job.inputs["checkpoint"], Job) for jobs in plan.base.values() for job in jobs.values())


def test_an_override_changes_the_keys_and_the_reports_name(plan: Plan, desk: Desk):
    changed = planned(desk, overrides=["stage1.p=0.3"])
    assert changed.overridden and changed.name.startswith("table3c-overridden-") and plan.name == "table3c"
    assert trained(changed, "Stage 1 Only") != trained(plan, "Stage 1 Only")
    assert trained(changed, "Stage 1 Only").payload["stage"]["p"] == 0.3
    assert trained(changed, "Stage 2 Only") == trained(plan, "Stage 2 Only")
    assert planned(desk, overrides=["stage1.p=0.5"]).overridden
    assert planned(desk, overrides=["stage1.p=0.3", "seed_of_nothing=1"][:1]).name == changed.name


def test_an_override_is_taken_as_it_stands_and_a_row_is_scaled(desk: Desk):
    assert trained(planned(desk, overrides=["stage1.lr=1e-3"]), "Stage 1 Only").payload["stage"]["lr"] == 1e-3
    path = desk.table(("{stages: [stage1], reported", "{stages: [stage1], set: {stage1.lr: 2e-5}, reported"))
    plan = plan_experiment(path, "proxy", tasks=fake_digest)
    assert trained(plan, "Stage 1 Only").payload["stage"]["lr"] == pytest.approx(6e-4)
    assert trained(plan, "Two-stage (Ours)").inputs["init"].payload["stage"]["lr"] == pytest.approx(3e-4)


def test_every_value_says_where_it_came_from(plan: Plan):
    values = plan.rows[1].values
    assert values["stage2.teacher"].where == "table.yaml:8" and values["stage2.teacher"].origin == "row"
    scaled = values["stage2.steps"]
    assert (scaled.value, scaled.unscaled, scaled.factor, scaled.origin) == (62, 1250, 0.05, "recipe")
    assert values["stage2.precision"].where.startswith("profiles/proxy.yaml:")
    assert values["stage2.tau"].assumed and not values["stage2.lambda_dac"].assumed


def test_rows_that_are_one_run_are_named(desk: Desk):
    again = "  - Again:     {stages: [stage1]}\n  - Joint Train"
    plan = plan_experiment(desk.table(("  - Joint Train", again)), "proxy", seeds=1, tasks=fake_digest)
    assert plan.same_run() == [("Stage 1 Only", "Again")] and kinds(plan)["train"] == 4


def test_vanilla_sft_does_not_depend_on_latent_steps(desk: Desk):
    rows = [("- Joint Train:      {stages: [joint]", "- Joint Train:      {stages: [sft], set: {latent_steps: 4}")]
    four = plan_experiment(desk.table(*rows), "proxy", tasks=fake_digest)
    eight = plan_experiment(desk.table((rows[0][0], "- Joint Train:      {stages: [sft]")), "proxy", tasks=fake_digest)
    assert trained(four, "Joint Train") == trained(eight, "Joint Train")
    assert {mode for _, mode in four.cell("Joint Train", "mmvp").jobs} == {"own"}


def test_latent_steps_reach_training_and_decoding(desk: Desk):
    path = desk.table(("{stages: [stage1], reported", "{stages: [stage1], set: {latent_steps: 4}, reported"))
    plan = plan_experiment(path, "proxy", tasks=fake_digest)
    assert trained(plan, "Stage 1 Only").payload["latent_steps"] == 4
    assert plan.cell("Stage 1 Only", "mmvp").by_seed()[0].payload["decode"]["latent_steps"] == 4


def test_resources_and_dispatch_are_in_no_key(desk: Desk, plan: Plan):
    text = desk.profile("proxy").replace("micro_batch: 32", "micro_batch: 4").replace("{kind: local}", "{kind: slurm}")
    desk.write("profiles/mine.yaml", text.replace("memory_gb: 3", "memory_gb: 1"))
    assert {job.key for job in planned(desk, "mine").graph} == {job.key for job in plan.graph}


def test_a_row_that_a_recipe_cannot_express_is_not_defined_under_it(desk: Desk):
    path = desk.table(("{stages: [stage1], reported", "{stages: [stage1], set: {stage1.p: 0.3}, reported"))
    plan = plan_experiment(path, "proxy", recipe="vreflection-release", tasks=fake_digest)
    assert plan.overridden and plan.rows[0].undefined.startswith("not defined under vreflection-release: ")
    assert plan.cell("Stage 1 Only", "mmvp").jobs == {} and "never read" in plan.cell("Stage 1 Only", "mmvp").not_run
    assert plan.cell("Joint Train", "mmvp").jobs


def test_two_tables_share_what_they_have_in_common(desk: Desk):
    one, two = planned(desk), planned(desk, rows=["Joint"])
    assert len(merged([one, two])) == len(one.graph)


# All profiles, all tables


def impossible(plan: Plan) -> set[tuple[str, str]]:
    """Cells that the profile's data cannot give, as the plan says: the hub's benchmarks come without evidence boxes."""
    return {(cell.row, cell.column.name) for cell in plan.cells if (cell.not_run or "").startswith("not possible here")}


def shape(plan: Plan, left_out: set[tuple[str, str]]) -> list:
    """The graph up to isomorphism: which cells hang on which chain of trainings, and which chains are the same. Systems of
    others are left out: who can be asked depends on the profile and on the machine."""
    seen: dict[str, int] = {}
    chains: list = []

    def number(upstream) -> int:
        if upstream.key not in seen:
            what = upstream.payload["stage"]["kind"] if isinstance(upstream, Job) else "base"
            roles = ("init", "teacher")
            parents = [(r, number(upstream.inputs[r])) for r in roles if r in getattr(upstream, "inputs", {})]
            seen[upstream.key] = len(seen)
            chains.append((what, parents))
        return seen[upstream.key]

    others = {row.label for row in plan.rows if row.row.external}
    cells = [
        (
            cell.row,
            cell.column.name,
            cell.not_run,
            [(seed, number(job.inputs["checkpoint"])) for (seed, _), job in cell.jobs.items()],
        )
        for cell in plan.cells
        if cell.row not in others and (cell.row, cell.column.name) not in left_out
    ]
    return [cells, chains]


def profiles(desk: Desk) -> list[str]:
    names = sorted(path.stem for path in (EXPERIMENTS / "profiles").glob("*.yaml"))
    for name in names:
        desk.write(f"profiles/{name}.yaml", desk.profile(name))
    return names


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_resolves_a_table_to_the_same_graph(path, desk: Desk):
    names = profiles(desk)
    desk.write(path.name, path.read_text())
    plans = [
        plan_experiment(path.name, name, seeds=1, protocols=["paper"], latents=["own"], tasks=fake_digest) for name in names
    ]
    left_out = set().union(*map(impossible, plans))
    assert bool(left_out) == (path.stem == "figures")  # maps need boxes; nothing else may be called impossible
    shapes = [shape(plan, left_out) for plan in plans]
    assert len(names) >= 4 and all(found == shapes[0] for found in shapes[1:])


@pytest.mark.parametrize("profile", ["proxy", "a800"])
def test_the_papers_tables_and_lvr_are_twenty_one_trainings(profile, desk: Desk):
    profiles(desk)
    plans = []
    for path in sorted(EXPERIMENTS.glob("table*.yaml")):
        desk.write(path.name, path.read_text())
        plans.append(plan_experiment(path.name, profile, seeds=1, tasks=fake_digest))
    assert Counter(job.kind for job in merged(plans))["train"] == 21


def test_proxy_on_slurm_has_proxys_keys(desk: Desk):
    profiles(desk)
    keys = [{job.key for job in planned(desk, name).graph} for name in ("proxy", "proxy-slurm")]
    assert keys[0] == keys[1]
