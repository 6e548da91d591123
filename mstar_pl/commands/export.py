"""`mstar-pl export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mstar_pl.types import InputError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


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
    from mstar_pl.data.recipe import find_recipe
    from mstar_pl.models.publish import publish_model

    name, sections = name or out.name, {}
    front_matter = {"base_model": base_model, "datasets": datasets, "license": license}
    given: dict[str, Any] = {key: value for key, value in front_matter.items() if value is not None}
    if results is not None:
        sections["Scores"], given["eval_results"] = _scores(name, results)
        given["model_name"] = name
    recipe = recipe or find_recipe(source.parent)
    print(f"wrote {publish_model(source, out, recipe, sections, **given)}")


def _scores(name: str, folder: Path) -> tuple[str, list[EvalResult]]:
    """Return all scores in a folder, of a policy and of a step judge, as tables and as the hub lists them."""
    from mstar_pl.data.cards import escaped
    from mstar_pl.evaluation.comparison import read_evaluations, read_results, score
    from mstar_pl.evaluation.comparison_tables import compare
    from mstar_pl.evaluation.table import score_table

    tables, listed = [], []
    results = read_results(folder).values()
    for one in (one for one in results if "scores" in one):
        named = {escaped(group): scores for group, scores in one["scores"].items()}
        tables.append(f"{escaped(one['benchmark'])} ({escaped(one['rules'])}):\n\n{score_table(named)}")
        listed += [
            _eval_result(one["benchmark"], metric, one["scores"]["all"][metric], metric)
            for metric in ("macro_f1", "f1")
            if metric in one["scores"]["all"]
        ]
    if tables and not any("accuracy" in one for one in results):
        return "\n\n".join(tables), listed
    text = "greedy accuracy in percent, 95 % interval {1:.1f} to {2:.1f}"
    found = [score(one, one.headline) for one in read_evaluations(name, folder).values()]
    listed += [
        _eval_result(one.benchmark, "accuracy", one.mean, text.format(*(100 * x for x in one.interval)))
        for one in found
        if one is not None and one.interval is not None
    ]
    accuracies = compare({name: folder}, "none", shown=escaped)["table.md"]
    return "\n\n".join([accuracies, *tables]), listed


def _eval_result(benchmark: str, metric: str, value: float, text: str) -> EvalResult:
    from huggingface_hub import EvalResult

    from mstar_pl.evaluation.paper import TITLES

    return EvalResult(
        task_type="image-text-to-text",
        dataset_type=benchmark,
        dataset_name=TITLES.get(benchmark, benchmark),
        metric_type=metric,
        metric_value=round(100 * value, 2),
        metric_name=text,
    )


def dataset(
    splits: dict[str, Path],
    out: Path,
    license: str,
    source: str,
    iterations: list[int] | None = None,
    image_root: Path | None = None,
    recipe: Path | None = None,
) -> None:
    """Write responses or labelled steps as a data set that `datasets.load_dataset` reads, with a card.

    Args:
        splits: By name of the split, e.g. --splits.train runs/label/train.jsonl: JSONL of examples or of
            labelled steps, or the rollouts folder of a run, of which the selected responses are taken.
        out: New folder.
        license: Licence as the hub names it; it is never guessed.
        source: Where questions, images and responses come from, for the card.
        iterations: Iterations of the run; default are all.
        image_root: Folder below which the images lie, to reference them by their paths in it; default is to
            embed them.
        recipe: What the data were made with; default is the run's configuration, or report.json beside the
            file.
    """
    from mstar_pl.data.publish import open_split, write_dataset
    from mstar_pl.data.recipe import REPORT, find_recipe

    if not splits:
        raise InputError("no split given; give e.g. --splits.train FILE")
    first = next(iter(splits.values()))
    if recipe is None and first.is_dir():
        recipe = find_recipe(first.parent)
    elif recipe is None and (report := first.parent / REPORT).is_file():
        recipe = report
    records = {split: open_split(path, iterations) for split, path in splits.items()}
    written = write_dataset(
        records, out, license=license, source=source, image_root=image_root, recipe=recipe
    )
    print(f"wrote {written}")
