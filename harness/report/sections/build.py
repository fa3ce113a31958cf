"""From a study and its results to a frozen `Report`: which sections, in which order, with which words before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.report.numbers.fingerprint import fingerprint
from harness.report.numbers.results import BASE, Results
from harness.report.numbers.study import Study, Tracking, registered, settled
from harness.report.sections.card import card_sections
from harness.report.sections.claims import claim_table
from harness.report.sections.conclusion import answers, conclusion
from harness.report.sections.formats import kind_tables, readable_table
from harness.report.sections.headline import headline
from harness.report.sections.likelihood import likelihood_pairs, likelihood_table
from harness.report.sections.mechanism import latent_table, probe_details, probe_table
from harness.report.sections.pairs import declared_table, exploratory_table, uncompared_note
from harness.report.sections.provenance import assumed, job_table, overridden, provenance, same_runs, scale_table
from harness.report.sections.records import of_tables, records
from harness.report.sections.tables import answer_table, main_notes, main_table, own_base
from harness.report.sections.types import Chart, Drawing, Mark, Panel, Report, Section, Table
from harness.report.sections.words import count, scaled
from harness.store import Store

CHART_ROWS = 60
"""More make a picture that no page holds; the table has all."""


def build(study: Study, store: Store, out_dir: Path, tracking: Tracking | None = None) -> Report:
    """Everything a writer prints."""
    links, warning = find_links(study, store, tracking)
    results = Results(settled(study, store), store, out_dir, links)
    if study.experiment.maps or study.experiment.measure:
        return special(results, warning)
    marks, same = same_runs(results)
    others = [p for p in study.protocols if p != study.experiment.protocol]
    sections = [
        Section("", tables=(main_table(results, study.experiment.protocol, marks),), bullets=tuple(same), name="main"),
        Section("", tables=present(answers(results)), name="answers"),
        Section(
            "How this was measured", bullets=main_notes(results, study.experiment.protocol), folded=True, name="measured"
        ),
        Section("In detail", bullets=tuple(headline(results)), folded=True, name="detail"),
        Section("Claims", tables=present(claim_table(results)), folded=True, name="claims"),
        Section(
            "Declared comparisons, and what they could have shown",
            tables=present(declared_table(results, study.experiment.protocol)),
            folded=True,
            name="pairs",
        ),
        Section(
            "All other pairs, exploratory",
            bullets=tuple(uncompared_note(results, study.experiment.protocol)),
            tables=present(exploratory_table(results, study.experiment.protocol)),
            folded=True,
            name="exploratory",
        ),
        Section(
            "Mechanism",
            text=("Accuracy alone cannot tell a latent path that helps from one that is ignored.",),
            tables=present(latent_table(results), probe_table(results), answer_table(results)),
            folded=True,
            name="mechanism",
        ),
        *card_sections(results),
        Section(
            "Log-likelihood of the right letter",
            tables=present(
                likelihood_table(results, study.experiment.protocol), likelihood_pairs(results, study.experiment.protocol)
            ),
            folded=True,
            name="likelihood",
        ),
        Section(
            "Format and kinds of question",
            tables=(*present(readable_table(results, study.experiment.protocol)), *kind_tables(results, study.experiment.protocol)),
            folded=True,
            name="format",
        ),
    ]
    sections += [
        Section(
            f"Protocol {protocol}",
            text=("The same checkpoints under the other reading of the benchmarks; the paper's numbers do not belong here.",),
            tables=(
                main_table(results, protocol, {}),
                *present(declared_table(results, protocol), exploratory_table(results, protocol)),
            ),
            bullets=main_notes(results, protocol),
            folded=True,
            name=f"protocol-{protocol}",
        )
        for protocol in others
        if any(results.planned(column, protocol) for column in results.columns)
    ]
    if (scale := scale_table(results)) is not None:
        sections.append(Section("Scale", tables=(scale,), folded=True, name="scale"))
    if silent := assumed(results):
        sections.append(
            Section(
                "Assumed",
                text=(
                    "The paper is silent on these options; the values are this project's."
                    if len(study.recipes) == 1
                    else "The source of the recipe named first is silent on the option; the value is this project's.",
                ),
                bullets=tuple(silent),
                folded=True,
                name="assumed",
            )
        )
    if (details := probe_details(results)) is not None:
        sections.append(Section("Probe", tables=(details,), folded=True, name="probe"))
    sections.append(
        Section("Provenance", bullets=tuple(provenance(results)), tables=(job_table(results),), folded=True, name="provenance")
    )
    spec = study.experiment
    return Report(
        name=study.name,
        seeds=study.seeds,
        label=f"{spec.kind.capitalize()} {spec.name}",
        title=spec.title,
        subtitle=" · ".join([
            spec.source or "No source given", study.recipe_text, f"profile {study.profile_name}",
            count(study.seeds, "seed"), registered(study, store),
        ]),
        headline=(),
        conclusion=conclusion(results),
        sections=tuple(s for s in sections if s.tables or s.bullets),
        chart=chart(results),
        fingerprint=fingerprint(study, store),
        warning=" ".join([*override_warning(results), *warning]),
        profile=study.profile_name,
        spec=study.spec,
        data=records(results),
        paper=not study.overrides and not study.left_out,
    )


def special(results: Results, warning: list[str]) -> Report:
    """A report that shows no accuracies: attention maps, or what inference costs."""
    study = results.study
    spec, chart = study.experiment, None
    drawings: tuple[Drawing, ...] = ()
    if spec.maps:
        from harness.report.sections.attention import attention_sections

        headline, sections, drawings, chart = attention_sections(results)
    else:
        from harness.report.sections.efficiency import efficiency_sections

        headline, sections, chart = efficiency_sections(results)
    main = replace(sections[0], bullets=(*sections[0].bullets, *spec.notes))
    origin = Section("Provenance", bullets=tuple(provenance(results)), tables=(job_table(results),), folded=True, name="provenance")
    return Report(
        name=study.name,
        label=f"{spec.kind.capitalize()} {spec.name}",
        title=spec.title,
        subtitle=f"{spec.source or 'No source given'} · {study.recipe_text} · profile {study.profile_name}",
        headline=tuple(headline),
        sections=(main, *sections[1:], origin),
        chart=chart,
        fingerprint=fingerprint(study, results.store),
        warning=" ".join([*override_warning(results), *warning]),
        profile=study.profile_name,
        spec=study.spec,
        drawings=drawings,
        data=of_tables(table for section in sections for table in section.tables),
        paper=not study.overrides and not study.left_out,
    )


def present(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)


def find_links(study: Study, store: Store, tracking: Tracking | None) -> tuple[Mapping[str, str], list[str]]:
    """Addresses of runs, and what to say when there are none."""
    if tracking is None:
        return {}, []
    try:
        return tracking.links(list(study.jobs())), []
    except OSError as error:
        reason = str(error).replace(f"{store.root.parent}/", "")  # a report says nothing of where it was made
        return {}, [f"MLflow could not be reached ({reason}); this report was read from the results folder alone."]


def override_warning(results: Results) -> list[str]:
    study, lines = results.study, []
    if study.overrides:
        what = ", ".join(overridden(results)) or ", ".join(study.overrides)
        lines.append(f"OVERRIDDEN: {what}. This is not the paper's table.")
    if study.left_out:
        lines.append(f"PARTIAL: left out on request: {', '.join(study.left_out)}.")
    return lines


def chart(results: Results) -> Chart | None:
    """Measured and reported values, by row, one panel a column; the two never share an axis."""
    study = results.study
    protocol = study.experiment.protocol
    every = tuple(label for label, arm in results.arms.items() if arm.row.delta is None)
    rows = every[:CHART_ROWS]
    some = f", first {CHART_ROWS} of {len(every):,} rows" if len(every) > CHART_ROWS else ""
    base = own_base(results)
    panels = []
    for name in results.columns:
        measured = [
            Mark(row, 100 * value.mean, scaled(value.interval))
            for row in rows
            if (value := results.estimate(row, name, protocol)) is not None
        ]
        reported = [
            Mark(row, float(printed.value), text=printed.text)
            for row in rows
            if (printed := results.reported(row, name)) is not None and printed.value is not None
        ]
        of_base = results.estimate(BASE, name, protocol) if base else None
        panels.append(
            Panel(
                results.title(name),
                tuple(measured),
                tuple(reported),
                results.score(name).chance,
                None if of_base is None else 100 * of_base.mean,
            )
        )
    if not any(panel.measured or panel.reported for panel in panels):
        return None
    proxy = study.profile.proxy
    found = [e for row in rows for c in results.columns if (e := results.estimate(row, c, protocol)) is not None]
    seeds = max((e.seeds for e in found), default=0)
    noise = "item noise only, one seed" if seeds == 1 else f"item and seed noise, {seeds} seeds"
    return Chart(
        f"{study.experiment.kind.capitalize()} {study.experiment.name}: {study.experiment.title}",
        rows,
        tuple(panels),
        f"Measured here{' at proxy scale' if proxy else ''}{some}, 95 % interval ({noise})" if found else "Measured here: nothing yet",
        "Reported by the paper" + (" (another model, other data: not comparable)" if proxy else ""),
        f"accuracy in percent · {study.recipe_text} · profile {study.profile_name} · protocol {protocol}",
        **axis_of(results, rows),
    )


def axis_of(results: Results, rows: tuple[str, ...]) -> dict[str, Any]:
    """For a line plot: every row's place on the axis that the spec names."""
    plot = results.study.experiment.plot
    places = [results.arms[row].row.x for row in rows]
    if plot is None or None in places:
        return {}
    return {"x": tuple(places), "x_label": plot.x, "x_log": plot.log}
