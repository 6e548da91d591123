"""The study by type of question: python -m tests.evaluation.question_types > docs/study/question_types.md"""

import yaml

from mstar_pl.data.minivista import MiniVista
from mstar_pl.evaluation.study_tables import tables
from tests.evaluation.pairs import STUDY, only, pairs, read_outcomes


def question_types():
    """Return the main table of each type of question, and the pairs on free-form ones."""
    config = yaml.safe_load((STUDY.parents[1] / "configs/study/minivista.yaml").read_text())
    outcomes = read_outcomes((STUDY / "tables/outcomes.json").read_text())
    questions = MiniVista(split="test")
    prompts = [questions[index].prompt for index in range(len(outcomes.tasks))]
    text = ""
    for name, kind in (("Free-form", "free_form"), ("Multiple-choice", "multi_choice")):
        ids = {prompt.id for prompt in prompts if prompt.question_type == kind}
        table = tables(only(outcomes, ids), config["baseline"], config["against"])["rows.md"]
        text += f"{name} questions, {len(ids)}:\n\n{table}\n\n"
        if kind == "free_form":
            text += f"Pairs of rows on them:\n\n{pairs(ids)}\n\n"
    return text.rstrip()


if __name__ == "__main__":
    print(question_types())
