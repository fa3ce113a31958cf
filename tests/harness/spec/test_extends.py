"""A profile or a recipe that states only what it changes in another."""

import pytest

from harness.cli import main
from harness.plan.sources import backbone
from harness.spec.errors import SpecError
from harness.spec.files import EXPERIMENTS, load_profile, load_recipe
from harness.spec.resolve import base, read_recipe
from tests.harness.conftest import Desk


def mine(desk: Desk, text: str, name: str = "mine"):
    desk.write(f"profiles/{name}.yaml", text)
    return load_profile(name, desk.folder)


def test_what_is_written_replaces_and_what_is_not_stays(desk: Desk):
    proxy = load_profile("proxy", desk.folder).value
    text = "extends: proxy\ntitle: mine\nbenchmarks:\n  mmvp: {n: 7}\nlatents: [own]\nresources: {train: {minutes: 5}}\n"
    own = mine(desk, text).value
    assert own.title == "mine" and own.latents == ("own",)
    assert own.benchmarks["mmvp"].n == 7 and own.benchmarks["blink"] == proxy.benchmarks["blink"]
    assert own.resources["train"] == proxy.resources["train"].model_copy(update={"minutes": 5})
    assert own.model_copy(update={n: getattr(proxy, n) for n in ("title", "latents", "benchmarks", "resources")}) == proxy


def test_a_mapping_of_another_kind_is_replaced_as_a_whole(desk: Desk):
    own = mine(desk, "extends: proxy\ndata: {source: external, meta: m.json, revision: r1}\n").value
    assert own.data.source == "external" and own.data.meta == "m.json"


def test_profiles_extend_profiles_that_extend(desk: Desk):
    mine(desk, "extends: proxy\nseeds: 2\nscale: {steps: 0.5}\n", "between")
    last = mine(desk, "extends: ./between.yaml\nscale: {lr: 3}\n").value
    assert last.seeds == 2 and last.scale["steps"] == 0.5 and last.scale["lr"] == 3 and last.scale["global_batch"] == 0.078125


@pytest.mark.parametrize(
    ("changed", "n", "seed", "split"),
    [
        ("benchmarks: {blink: {n: 500}}", 500, 0, "test"), ("benchmarks: {blink: {seed: 3, split: dev}}", 697, 3, "dev"),
        ("benchmarks: {blink: {n: 500}}\nbeside_clips: {blink: {n: 40}}", 40, 0, "test"), ("benchmarks: {mmvp: {n: 8}}", 697, 0, "test"),
        ("benchmarks: {blink: {source: external, path: blink}}", 697, 0, "test"),
    ],
)  # fmt: skip
def test_what_is_changed_of_a_benchmark_is_changed_beside_clips_too(desk: Desk, changed, n, seed, split):
    found = mine(desk, f"extends: proxy\n{changed}\n").value.beside_clips["blink"]
    assert (found.n, found.seed, found.split) == (n, seed, split)
    last = mine(desk, "extends: ./mine.yaml\nbenchmarks: {blink: {n: 60}}\n" if "external" not in changed else "extends: ./mine.yaml\n", "last")
    assert last.value.beside_clips["blink"].n == (60 if "external" not in changed else n)


@pytest.mark.parametrize("section", ["benchmarks", "beside_clips"])
def test_an_entry_stands_for_the_benchmark_that_it_is_named_after(desk: Desk, section):
    assert mine(desk, f"extends: proxy\n{section}: {{blink: {{benchmark: blink}}}}\n").value.beside_clips["blink"].n == 697
    with pytest.raises(SpecError) as error:
        mine(desk, f"extends: proxy\n{section}: {{blink: {{benchmark: vstar}}}}\n")
    (line,) = str(error.value).splitlines()
    assert line == f"profiles/mine.yaml:2: {section}: blink: benchmark: 'vstar' is not what the entry stands for; leave it out, or name the entry so"


def test_a_value_is_blamed_on_the_file_that_writes_it(desk: Desk):
    loaded = mine(desk, "extends: proxy\nscale:\n  steps: 0.5\n")
    assert loaded.where("scale", "steps") == "profiles/mine.yaml:3"
    assert loaded.where("scale", "lr").startswith("profiles/proxy.yaml:")
    with pytest.raises(SpecError, match=r"profiles/mine\.yaml:2: resources\.train\.minuts: no such field; did you mean"):
        mine(desk, "extends: proxy\nresources: {train: {minuts: 5}}\n")
    desk.write("profiles/proxy.yaml", desk.profile("proxy").replace("  lr: 30", "  lr: 0"))
    with pytest.raises(SpecError, match=r"^profiles/proxy\.yaml:\d+: scale\.lr: 0 is out of range"):
        mine(desk, "extends: proxy\nseeds: 3\n")


def test_a_folder_is_looked_for_beside_the_file_that_names_it(desk: Desk):
    (desk.folder / "base").rename(desk.folder / "profiles" / "stand-in")
    desk.write("profiles/proxy.yaml", desk.profile("proxy").replace(str(desk.folder / "base"), "stand-in"))
    (desk.folder / "elsewhere").mkdir()
    desk.write("elsewhere/mine.yaml", "extends: ../profiles/proxy.yaml\nseeds: 2\n")
    assert backbone(load_profile("elsewhere/mine.yaml")).location == str(desk.folder / "profiles" / "stand-in")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: proxi\n", 'profiles/mine.yaml:1: extends: no such profile "proxi"; did you mean "proxy"? (profiles: '),
        ("extends: mine\n", "profiles/mine.yaml:1: extends: is circular: profiles/mine.yaml → profiles/mine.yaml"),
        ("extends: [proxy]\n", "profiles/mine.yaml:1: extends: must be the name of a profile, not"),
        ("extends: ./list.yaml\n", "profiles/list.yaml:1: a profile is a mapping of options"),
        ("extends: ./gone.yaml\n", "profiles/mine.yaml:1: extends: no such file ./gone.yaml"),
        ("extend: proxy\n", 'profiles/mine.yaml:1: extend: no such field; did you mean "extends"?'),
    ],
)
def test_a_wrong_parent_is_one_line(text, said, desk: Desk):
    desk.write("profiles/list.yaml", "- proxy\n")
    with pytest.raises(SpecError) as error:
        mine(desk, text)
    assert said in str(error.value).splitlines()[-1]


def test_a_circle_of_two_is_refused(desk: Desk):
    desk.write("profiles/other.yaml", "extends: mine\n")
    with pytest.raises(SpecError, match="is circular: .*mine.yaml → .*other.yaml → .*mine.yaml"):
        mine(desk, "extends: other\n")


# Recipes


def recipe(desk: Desk, text: str, name: str = "mine"):
    desk.write(f"recipes/{name}.yaml", text)
    return read_recipe(load_recipe(name, desk.folder))


def test_a_recipe_states_what_it_changes_and_every_value_knows_its_file(desk: Desk):
    paper = read_recipe(load_recipe("vreflection"))
    mine_ = recipe(desk, "extends: vreflection\ntitle: mine\nshared: {lambda_bcm: 0.2}\nstage2: {lr: 1.0e-6}\nassumed: [stage2.lr]\n")
    changed = {name: value.value for name, value in mine_.items() if value.value != paper[name].value}
    assert changed == {"stage1.lambda_bcm": 0.2, "joint.lambda_bcm": 0.2, "stage2.lr": 1e-6}
    assert mine_["stage1.lambda_bcm"].where == "recipes/mine.yaml:3" and mine_["stage1.p"].where.endswith("recipes/vreflection.yaml:32")
    assert mine_["stage2.lr"].assumed and mine_["stage1.roi_bins"].assumed


def test_what_is_stated_anew_is_no_longer_assumed_and_a_bare_name_reaches_every_stage(desk: Desk):
    recipe(desk, "extends: vreflection\nstage1: {roi_bins: 4}\n", "between")
    last = recipe(desk, "extends: between\nshared: {roi_bins: 6}\n")
    assert {last[f"{stage}.roi_bins"].value for stage in ("stage1", "stage2", "joint")} == {6}
    assert not last["stage1.roi_bins"].assumed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: vreflektion\n", 'recipes/mine.yaml:1: extends: no such recipe "vreflektion"; did you mean "vreflection"? (recipes: '),
        ("extends: mine\n", "recipes/mine.yaml:1: extends: is circular: recipes/mine.yaml → recipes/mine.yaml"),
        ("extends: vreflection\nstage1: {pp: 1}\n", "recipes/mine.yaml:2: stage1.pp: no such field"),
    ],
)
def test_a_recipes_mistake_is_one_line_of_its_own_file(text, said, desk: Desk):
    with pytest.raises(SpecError) as error:
        recipe(desk, text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_recipes_that_ship_differ_only_where_the_release_says_something(desk: Desk):
    release = read_recipe(load_recipe("vreflection-release"))
    paper = read_recipe(load_recipe("vreflection"))
    apart = {name for name in release if release[name].value != paper[name].value}
    assert apart and all("vreflection-release.yaml" in release[name].where for name in apart)
    assert any("vreflection.yaml" in value.where for value in release.values())


def test_diff_and_explain_show_where_an_inherited_value_comes_from(desk: Desk, capsys):
    desk.write("recipes/mine.yaml", "extends: vreflection\ntitle: mine\nstage1: {p: 0.4}\n")
    assert main(["plan", str(desk.table()), "--profile", "smoke", "--recipe", "recipes/mine.yaml", "--explain", "Stage 1 Only"]) == 0
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert "0.4" in shown["stage1.p"] and "recipes/mine.yaml:3" in shown["stage1.p"]
    assert "vreflection.yaml" in shown["stage1.align"]
    assert main(["diff", "vreflection", "recipes/mine.yaml"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "stage1" in line or line.strip().startswith("p ")]
    assert line.split()[1:] == ["0.5", "0.4"]


def test_the_profile_for_tuning_asks_development_questions_alone():
    dev = load_profile("proxy-dev", EXPERIMENTS).value
    asked = {f"{where} {name}": source.split for where in ("benchmarks", "beside_clips") for name, source in getattr(dev, where).items()}
    assert "beside_clips blink" in asked and set(asked.values()) == {"dev"}


@pytest.mark.parametrize("option", ["stage1.steps", "steps"])
def test_what_an_heir_sets_is_not_scaled_by_its_parents_factor(desk: Desk, option):
    path = desk.write("profiles/mine.yaml", f"extends: proxy\nset: {{{option}: 50}}\n")
    start = base(load_recipe("vreflection"), load_profile(str(path)))
    assert start.values["stage1.steps"].value == 50 and "stage1.steps" not in start.scale
    assert ("stage2.steps" in start.scale) == (option != "steps") and start.scale["stage1.lr"] == 30
    desk.write("profiles/mine.yaml", f"extends: proxy\nset: {{{option}: 50}}\nscale: {{stage1.steps: 0.1}}\n")
    with pytest.raises(SpecError, match=r"mine.yaml:3: scale.stage1.steps: stage1.steps is in set: too \(.*mine.yaml:2\); keep one"):
        base(load_recipe("vreflection"), load_profile(str(path)))


@pytest.mark.parametrize(
    ("parent", "heir", "found"),
    [("{steps: 9, stage1.steps: 50}", "{steps: 7}", (7, 7)), ("{stage1.steps: 50}", "{stage1: {steps: 8}}", (8, 62)), ("{stage1: {steps: 6}}", "{steps: 7}", (7, 7))],
)
def test_what_an_heir_sets_replaces_its_parents_however_either_is_written(desk: Desk, parent, heir, found):
    mine(desk, "extends: proxy\nset: {stage1: {steps: 5}}\n", "first")
    mine(desk, f"extends: first\nset: {parent}\n", "between")
    start = base(load_recipe("vreflection"), mine(desk, f"extends: between\nset: {heir}\n"))
    assert tuple(start.untouched[f"{stage}.steps"].value for stage in ("stage1", "stage2")) == found
    assert start.untouched["stage1.steps"].where == "profiles/mine.yaml:2" and start.untouched["stage1.steps"].unscaled == 2500


def test_the_quick_profile_asks_and_trains_less_and_changes_nothing_else():
    quick, whole = (load_profile(name, EXPERIMENTS).value for name in ("proxy-quick", "proxy"))
    assert quick.seeds == 1 < whole.seeds
    for where in ("benchmarks", "beside_clips"):
        asked, before = (getattr(profile, where) for profile in (quick, whole))
        assert asked.keys() == before.keys() and all(asked[name].n < before[name].n for name in asked)
    for where in ("scale", "clip_scale"):
        factors, before = (getattr(profile, where) for profile in (quick, whole))
        assert factors.keys() == before.keys()
        assert {before[name] / factors[name] for name in factors if "steps" in name} == {2}
        assert all(factors[name] == before[name] for name in factors if "steps" not in name)
    left = {"title", "seeds", "data", "clips", "benchmarks", "beside_clips", "scale", "clip_scale", "protocols", "latents"}
    assert quick.model_dump(exclude=left) == whole.model_dump(exclude=left)
