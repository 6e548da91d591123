"""`mstar-pl export`."""

from __future__ import annotations

from pathlib import Path


def model(
    source: Path,
    out: Path,
    recipe: Path | None = None,
    results: Path | None = None,
    name: str | None = None,
    base_model: str | None = None,
    datasets: list[str] | None = None,
    license: str | None = None,
) -> None:
    """Write a trained policy or process reward model as a Hugging Face folder with a full card.

    The weights are loaded once and looked at. The card has the base, the data, the recipe, the seeds, the
    versions, how to use the model, and its scores. recipe.yaml is the run's configuration as it is, with the
    paths in it.

    Args:
        source: Folder that a training exported, RUN/policy or RUN/mprm.
        out: New folder.
        recipe: config.yaml of the run; default is that of the last start of RUN.
        results: Folder of a finished evaluation of the model, or of one sub-folder a benchmark.
        name: Name of the model in its scores; default is that of OUT.
        base_model: Model that the training started from, as the hub names it.
        datasets: Data sets that it was trained on, as the hub names them.
        license: Licence as the hub names it, e.g. 'mit'.
    """
    from huggingface_hub import EvalResult

    from mstar_pl.data.cards import escaped
    from mstar_pl.evaluation.comparison import compare, read_evaluations, score
    from mstar_pl.evaluation.paper import TITLES
    from mstar_pl.models.publish import find_recipe, publish_model

    name = name or out.name
    front_matter = {"base_model": base_model, "datasets": datasets, "license": license}
    given = {key: value for key, value in front_matter.items() if value is not None}
    sections = {}
    if results is not None:
        sections["Scores"] = compare({escaped(name): results}, "none")["table.md"]
        scores = [score(one, one.headline) for one in read_evaluations(name, results).values()]
        given |= {
            "model_name": name,
            "eval_results": [
                EvalResult(
                    task_type="image-text-to-text",
                    dataset_type=one.benchmark,
                    dataset_name=TITLES.get(one.benchmark, one.benchmark),
                    metric_type="accuracy",
                    metric_value=round(100 * one.mean, 2),
                    metric_name="greedy accuracy in percent, 95 % interval {1:.1f} to {2:.1f}".format(
                        *(100 * bound for bound in one.interval)
                    ),
                )
                for one in scores
                if one is not None and one.interval is not None
            ],
        }
    recipe = recipe or find_recipe(source.parent)
    print(f"wrote {publish_model(source, out, recipe, sections, **given)}")
