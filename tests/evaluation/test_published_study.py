"""The committed study: its tables are what its outcomes give, and its report shows these tables."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from mstar_pl.evaluation.study_tables import tables
from tests.evaluation.pairs import pairs, read_outcomes
from tests.evaluation.question_types import question_types

STUDY = Path(__file__).parents[2] / "docs/study"
CONFIG = yaml.safe_load((STUDY.parents[1] / "configs/study/minivista.yaml").read_text())


@pytest.fixture(scope="module")
def outcomes():
    return read_outcomes((STUDY / "tables/outcomes.json").read_text())


def test_the_tables_are_made_of_the_outcomes(outcomes):
    found = tables(outcomes, CONFIG["baseline"], CONFIG["against"])
    committed = {path.name: path.read_text() for path in (STUDY / "tables").iterdir()}
    assert committed.keys() == found.keys()
    for name in ("rows.md", "tasks.md", "outcomes.json"):
        assert committed[name] == found[name] + "\n", name
    rows, again = (list(csv.reader(text["rows.csv"].splitlines())) for text in (committed, found))
    assert [row[0] for row in rows] == [row[0] for row in again]
    for row, other in zip(rows[1:], again[1:], strict=True):
        assert [float(x or "nan") for x in row[1:]] == pytest.approx(
            [float(x or "nan") for x in other[1:]], nan_ok=True
        )
    numbers = [dict(leaves(json.loads(text["study.json"]))) for text in (committed, found)]
    assert numbers[0] == pytest.approx(numbers[1])


def leaves(value, path=()):
    """Yield path and number of each leaf of a JSON object; null as minus one, which no accuracy is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, -1.0 if value is None else value


def test_two_rows_as_they_were_run_before_are_made_of_their_outcomes():
    earlier = read_outcomes((STUDY / "earlier/outcomes.json").read_text())
    expected = tables(earlier, CONFIG["baseline"], CONFIG["against"])["rows.md"]
    assert (STUDY / "earlier/rows.md").read_text() == expected + "\n"


def test_pairs_are_made_of_outcomes():
    assert (STUDY / "pairs.md").read_text() == pairs() + "\n"


def test_tables_by_type_of_question_are_made_of_outcomes():
    assert (STUDY / "question_types.md").read_text() == question_types() + "\n"


def test_the_report_shows_the_tables():
    report = (STUDY / "README.md").read_text()
    for name in ("tables/rows.md", "tables/tasks.md", "earlier/rows.md", "pairs.md", "question_types.md"):
        assert (STUDY / name).read_text() in report, name


def test_rows_seeds_and_prompts_are_those_of_the_configuration(outcomes):
    assert outcomes.runs.keys() <= {CONFIG["baseline"], *CONFIG["rows"]}
    for row, runs in outcomes.runs.items():
        assert list(runs) == CONFIG["seeds"], f"{row}: all seeds or none"
    assert len(outcomes.tasks) == 1000


def test_each_figure_has_its_numbers():
    figures = {path.stem for path in (STUDY / "figures").glob("*.svg")}
    assert figures
    for stem in figures:
        panels = json.loads((STUDY / f"figures/{stem}.json").read_text())
        assert all(curve for lines in panels.values() for curve in lines.values()), stem
        assert f"figures/{stem}.svg" in (STUDY / "README.md").read_text()
