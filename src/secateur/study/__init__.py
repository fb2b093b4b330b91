"""Many runs: a study file becomes a grid, a grid becomes stages, and stages are worked on until all are done."""

from __future__ import annotations

from secateur.study.recipe import RunRecipe as RunRecipe
from secateur.study.recipe import Study as Study
from secateur.study.recipe import parse_study as parse_study
from secateur.study.recipe import read_study as read_study
from secateur.study.study import Finished as Finished
from secateur.study.study import run_study as run_study
