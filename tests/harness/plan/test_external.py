"""Comparison systems: never a number that was not measured, always a reason."""

from harness.plan.plan import external_reason, plan_experiment
from harness.spec.experiment import External
from harness.spec.files import EXPERIMENTS
from tests.harness.conftest import Desk, fake_digest


def test_every_comparison_system_of_the_paper_says_why_it_was_not_run(desk: Desk):
    for name in ("table1", "table2"):
        desk.write(f"{name}.yaml", (EXPERIMENTS / f"{name}.yaml").read_text())
        plan = plan_experiment(f"{name}.yaml", "proxy", tasks=fake_digest)
        rows = [row.label for row in plan.rows if row.row.external]
        assert len(rows) >= 3
        for cell in plan.cells:
            if cell.row in rows:
                assert not cell.jobs and len(cell.not_run) > 20, cell.row


def test_the_reason_names_what_is_missing():
    assert "OPENAI_BASE_URL" in external_reason(External(endpoint="OPENAI_BASE_URL", model="gpt-4o"))
    assert "OpenGVLab/InternVL3-8B" in external_reason(External(repo="OpenGVLab/InternVL3-8B", adapter="internvl3"))
    assert external_reason(External(not_run="no weights are public")) == "no weights are public"
