"""The YAML language of experiments, recipes, profiles and benchmarks.

A person writes what differs; this room reads it, checks it, and says for every value where it came from. It knows the
schemas of `models.config` and nothing about jobs, machines or results. Every mistake is one line: file, line, field,
what was wrong, what to do.

text        YAML with line numbers          files     finding and reading the four kinds of file
experiment  columns, rows, reported values  recipe    the options of the method, and their names
claims      what a paper's text claims      profile   scale, backbone, data, resources
benchmark   scores, n, chance               resolve   recipe + profile + row + --set → options with provenance
"""

from harness.spec.benchmark import Benchmark, Score
from harness.spec.errors import SpecError
from harness.spec.experiment import Column, Experiment, Row
from harness.spec.files import (
    Loaded,
    LoadedExperiment,
    load_benchmark,
    load_experiment,
    load_profile,
    load_recipe,
)
from harness.spec.profile import Profile, Resources
from harness.spec.recipe import Recipe
from harness.spec.reported import Reported
from harness.spec.resolve import ResolvedRow, Value

__all__ = [
    "Benchmark", "Column", "Experiment", "Loaded", "LoadedExperiment", "Profile", "Recipe", "Reported", "ResolvedRow",
    "Resources", "Row", "Score", "SpecError", "Value", "load_benchmark", "load_experiment", "load_profile", "load_recipe",
]  # fmt: skip
