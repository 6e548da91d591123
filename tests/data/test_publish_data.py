"""Published data sets: what is written is read back equal, by `datasets` and by us; cards; refusals."""

import json
from dataclasses import replace
from random import Random

import pytest
from datasets import Features, load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from mstar_pl.cli import main
from mstar_pl.data.images import image_digest, load_image
from mstar_pl.data.jsonl import read_examples, write_json, write_jsonl
from mstar_pl.data.publish import _distinct, open_split, write_dataset
from mstar_pl.data.sources.given import load_examples
from mstar_pl.data.sources.published import PublishedExamples, PublishedSteps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.store import RolloutStore
from mstar_pl.types import Example, InputError, Prompt, Rollout, RolloutGroup, Score, ScoredGroup

ABOUT = {"license": "cc-by-4.0", "source": "drawn by a test"}


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of noise, which does not compress."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        noise = Random(index).randbytes(64 * 64 * 3)
        Image.frombytes("RGB", (64, 64), noise).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def examples(pictures):
    """One of each: every field, no image, two images, no answer, text that is markup."""
    first, second, third = (str(path) for path in sorted(pictures.iterdir()))
    full = {"choices": ("3 g", "4 g"), "question_type": "multi_choice", "unit": "g", "query": "Asked so."}
    prompts = [
        Prompt(id="full", question="How heavy?", images=(first,), answer="4 g", **full),
        Prompt(id="none", question="1 + 1?", answer="2.0", answer_type="float", precision=1),
        Prompt(
            id="two", question="Which?", images=(second, third), metadata={"task": "own", "deep": {"a": [1]}}
        ),
        Prompt(id="odd", question="---\nlicense: none\n```\n<script>", images=(first,), answer="| x |"),
    ]
    return [Example(prompt=one, response=f"I see {one.id} ```.\n\n# Answer\n\n2") for one in prompts]


@pytest.fixture
def labelled(examples):
    labels = [(1.0, 0.0), (0.25, None), (None, None), (1.0, 1.0)]
    return [
        StepLabels(prompt=one.prompt, steps=("One.", "# Answer\n\n2"), labels=own)
        for one, own in zip(examples, labels, strict=True)
    ]


def without_images(records):
    return [replace(one, prompt=replace(one.prompt, images=())) for one in records]


def digests(records):
    return [[image_digest(image) for image in one.prompt.images] for one in records]


@pytest.mark.parametrize("kind", ["cot", "mprm"])
def test_embedded_images_come_back_with_equal_records(request, tmp_path, kind):
    records = request.getfixturevalue("examples" if kind == "cot" else "labelled")
    out = write_dataset({"train": records, "test": records[1:]}, tmp_path / "out", **ABOUT)
    source = PublishedExamples if kind == "cot" else PublishedSteps
    for split, written in (("train", records), ("test", records[1:])):
        back = source(out, split=split).load()
        assert without_images(back) == without_images(written)
        assert digests(back) == digests(written)
        assert [load_image(image).size for image in back[0].prompt.images] in ([(64, 64)], [])


@pytest.mark.parametrize("kind", ["cot", "mprm"])
def test_referenced_images_come_back_as_they_were(request, tmp_path, pictures, kind):
    records = request.getfixturevalue("examples" if kind == "cot" else "labelled")
    out = write_dataset({"train": records}, tmp_path / "out", image_root=tmp_path, **ABOUT)
    source = PublishedExamples if kind == "cot" else PublishedSteps
    assert [*source(out, images=tmp_path).load()] == records
    (row, *_) = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert row["images"] == ["pictures/0.png"]
    assert row["image_sha256"] == [image_digest(str(pictures / "0.png"))]
    with pytest.raises(InputError, match="does not exist"):
        source(out, images=tmp_path / "out").load()
    named = ["--source", source.__name__, "--source.path", str(out), "--source.images", str(tmp_path)]
    assert main(["data", "check", *named]) == 0


def test_a_file_of_it_is_a_training_set_without_further_options(examples, tmp_path):
    out = write_dataset({"train": examples}, tmp_path / "out", **ABOUT)
    back = load_examples(out / "data/train-00000.parquet")
    assert without_images(back) == without_images(examples)
    assert digests(back) == digests(examples)


def test_metadata_of_another_kind_are_refused_by_row(tmp_path):
    row = {"id": "1", "question": "?", "answer": "1", "images": [], "response": "1", "metadata": ["a"]}
    with pytest.raises(InputError, match=r"a\.jsonl:1: 'metadata' must be an object"):
        PublishedExamples(write_jsonl(tmp_path / "a.jsonl", [row])).load()


def test_datasets_reads_the_folder_with_its_splits_and_features(examples, tmp_path):
    out = write_dataset({"train": examples, "validation": examples[:1]}, tmp_path / "out", **ABOUT)
    found = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 4, "validation": 1}
    row = found["train"][2]
    assert [image.size for image in row["images"]] == [(64, 64)] * 2
    assert json.loads(row["metadata"]) == {"task": "own", "deep": {"a": [1]}}
    described = DatasetCard.load(out / "README.md").data.to_dict()["dataset_info"]["features"]
    assert Features._from_yaml_list(described) == found["train"].features


def test_card_has_licence_counts_and_nothing_that_a_text_slipped_in(examples, tmp_path):
    evil = [examples[3], *examples[:3]]
    evil[0] = replace(evil[0], prompt=replace(evil[0].prompt, metadata={"task": "a`b\n# Heading <b>"}))
    card = DatasetCard.load(
        write_dataset({"train": evil}, tmp_path / "a_b", license="mit", source="x <i>\n# y") / "README.md"
    )
    assert card.data.license == "mit"
    assert "mstar" in card.data.tags
    for line in (
        "- `rows`: `4`",
        "- `prompts`: `4`",
        "- `images`: `3`",
        "- ``rows of a`b # Heading <b>``: `1`",
    ):
        assert line in card.text
    headings = [line for line in card.text.splitlines() if line.startswith("#")]
    titles = ["Source", "Images", "Counts", "Example"]
    assert headings == [r"# a\_b", *(f"## {title}" for title in titles)]
    assert r"x &lt;i&gt; \# y" in card.text
    fence = next(line for line in card.text.splitlines() if line.endswith("json"))
    assert fence == "````json", "the text in it has three"


def test_steps_are_counted_by_label(labelled, tmp_path):
    out = write_dataset({"train": labelled}, tmp_path / "out", **ABOUT)
    text = (out / "README.md").read_text()
    for line in ("- `steps`: `8`", "- `correct steps`: `4`", "- `steps without label`: `3`"):
        assert line in text


def test_an_image_of_many_responses_is_stored_once(examples, tmp_path, pictures):
    many = [replace(examples[0], response=f"{number}\n\n# Answer\n\nB") for number in range(64)]
    out = write_dataset({"train": many}, tmp_path / "out", **ABOUT)
    assert len(PublishedExamples(out).load()) == 64
    assert (out / "data/train-00000.parquet").stat().st_size < 2 * (pictures / "0.png").stat().st_size


def test_large_splits_become_several_files(examples, tmp_path, monkeypatch):
    monkeypatch.setattr("mstar_pl.data.publish.SHARD", 1)
    monkeypatch.setattr("mstar_pl.data.publish.ROWS", 3)
    out = write_dataset({"train": examples}, tmp_path / "out", **ABOUT)
    assert len(list((out / "data").iterdir())) == 2
    assert without_images(PublishedExamples(out, split="train").load()) == without_images(examples)


def scored(example, selected):
    rollouts = tuple(
        Rollout(text=text, token_ids=(1,), finish_reason="stop") for text in (example.response, "wrong")
    )
    group = RolloutGroup(prompt=example.prompt, prompt_token_ids=(1,), rollouts=rollouts, weight_version=0)
    scores = (Score(outcome="correct"), Score(outcome="wrong"))
    return ScoredGroup(group=group, scores=scores, selected=selected)


def test_command_takes_what_a_run_selected(examples, tmp_path, capsys):
    store = RolloutStore(tmp_path / "run/rollouts")
    for iteration in (0, 1):  # the same is selected twice
        store.begin(iteration, "f")
        store.append(iteration, [scored(examples[0], (0,)), scored(examples[1], ())], "f")
        store.finish(iteration, "f", {})
    recipe = "seed_everything: 11\nmodel: {}\ndata: {}\ntrainer: {}\n"
    (tmp_path / "run/config.yaml").write_text(recipe)
    out = tmp_path / "cot"
    arguments = ["--out", str(out), "--license", "mit", "--source", "a run"]
    rollouts = ["--splits.train", str(tmp_path / "run/rollouts")]
    assert main(["export", "dataset", *rollouts, *arguments]) == 0
    assert without_images(PublishedExamples(out).load()) == without_images(examples[:1])
    assert "- `seed_everything`: `11`" in (out / "README.md").read_text()
    assert (out / "recipe.yaml").read_text() == recipe
    assert main(["export", "dataset", *rollouts, *arguments]) == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert main(["export", "dataset", *rollouts, *arguments[:4]]) == 2
    assert "source" in capsys.readouterr().err


def test_two_responses_with_one_hash_are_both_taken(examples):
    class Colliding(str):
        def __hash__(self):
            return 0

    two = [replace(examples[0], response=Colliding(text)) for text in ("a", "b", "a")]
    assert [one.response for one in _distinct(two)] == ["a", "b"]


def test_command_takes_files_of_examples_and_of_steps(examples, labelled, tmp_path):
    file = write_jsonl(tmp_path / "label/train.jsonl", (one.to_json() for one in labelled))
    write_json(file.parent / "report.json", {"settings": {"sampling": {"seed": 5}}})
    arguments = ["--license", "mit", "--source", "labels", "--out", str(tmp_path / "out")]
    splits = ["--splits.train", str(file), "--splits.validation", str(file)]
    assert main(["export", "dataset", *splits, *arguments]) == 0
    assert len(PublishedSteps(tmp_path / "out", split="validation").load()) == 4
    card = (tmp_path / "out/README.md").read_text()
    assert "- `settings.sampling.seed`: `5`" in card
    assert "`report.json` is the report of how it was made." in card
    assert (tmp_path / "out/report.json").read_bytes() == (file.parent / "report.json").read_bytes()
    assert not (tmp_path / "out/recipe.yaml").exists()
    plain = write_jsonl(tmp_path / "cot.jsonl", (one.to_json() for one in examples))
    assert [*open_split(plain)] == [*read_examples(plain)]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("kinds", "one kind"),
        ("empty", "split test: nothing to write"),
        ("name", "'a-b' is no name of a split"),
        ("all", "'all' is no name of a split"),
        ("outside", "prompt 'full': image .*0.png is not below .*elsewhere"),
        ("missing", "prompt 'two': .*1.png"),
        ("text", "prompt 'two': cannot identify image file"),
    ],
)
def test_what_cannot_be_published_is_refused_and_nothing_is_left(
    examples, labelled, pictures, tmp_path, harm, message
):
    splits, root = {"train": examples}, None
    if harm == "kinds":
        splits["test"] = labelled
    elif harm == "empty":
        splits["test"] = []
    elif harm == "name":
        splits = {"a-b": examples}
    elif harm == "all":
        splits = {"all": examples}
    elif harm == "outside":
        root = tmp_path / "elsewhere"
    elif harm == "text":
        (pictures / "1.png").write_text("a secret")
    elif harm == "missing":
        (pictures / "1.png").unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        write_dataset(splits, tmp_path / "out", image_root=root, **ABOUT)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_a_complete_iteration_is_refused(tmp_path):
    with pytest.raises(InputError, match="no complete iteration"):
        open_split(tmp_path)
