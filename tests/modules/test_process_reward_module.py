"""Training of a process reward model through the real Trainer: loss, refusals, groups, metrics."""

import math
import random
from dataclasses import replace

import pytest
import torch

from mstar_pl.data.collate_steps import collate_steps
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.steps import StepDataModule
from mstar_pl.models import LoRA, adapter_for
from mstar_pl.modules import ProcessRewardModule
from mstar_pl.types import InputError, Prompt
from tests.modules.judging import run, save, trainer_of
from tests.modules.training import adamw, sgd

NUM_LABELS = 17


def untrained(folder, kind="token"):
    """A module whose model is loaded without a trainer."""
    torch.manual_seed(3)
    judge = ProcessRewardModule(adapter_for(folder, question_style="plain"), read_out=kind)
    judge.model = judge.lmm.load_model()
    judge.configure_model()
    return judge


def plain_probabilities(model, lmm, record):
    """Return the probability of + against - at the end of each step, from a plain forward of one response."""
    batch = collate_steps(lmm, [record])
    places = batch["step_places"]
    inputs = {key: value for key, value in batch.items() if not key.startswith("step_")}
    signs = lmm.tokenizer.convert_tokens_to_ids(["+", "-"])
    return model(**inputs).logits[0, places][:, signs].softmax(-1)[:, 0]


def cross_entropies(model, lmm, records, class_weights=(1.0, 1.0)):
    """Return the weighted binary cross entropy of each labelled step by its definition."""
    wrong, right = class_weights
    return torch.stack(
        [
            -(y * right + (1 - y) * wrong) * (y * p.log() + (1 - y) * (1 - p).log())
            for record in records
            for p, y in zip(plain_probabilities(model, lmm, record), record.labels, strict=True)
            if y is not None
        ]
    )


# The loss


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5)], ids=["plain", "weighted"])
def test_loss_is_the_cross_entropy_of_each_labelled_step(family_folder, records, weights):
    """Hard and soft labels, in a padded batch; steps whose label is not known are left out."""
    judge = untrained(family_folder)
    judge.class_weights = weights
    with torch.no_grad():
        losses, logits, labels, rows = judge.step_losses(collate_steps(judge.lmm, records))
        expected = cross_entropies(judge.model, judge.lmm, records, weights)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    known = [(row, y) for row, one in enumerate(records) for y in one.labels if y is not None]
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == known
    assert logits.shape == (NUM_LABELS,)


@pytest.mark.parametrize("kind", ["token", "head"])
def test_padded_batch_has_the_losses_of_single_rows(family_folder, records, kind):
    judge = untrained(family_folder, kind)
    text_only = replace(records[2], prompt=Prompt(id="t", question="What is 2 + 2", answer="4"))
    rows = [*records, text_only]
    with torch.no_grad():
        losses, *_ = judge.step_losses(collate_steps(judge.lmm, rows))
        single = [judge.step_losses(collate_steps(judge.lmm, [row]))[0] for row in rows]
    torch.testing.assert_close(losses, torch.cat(single), rtol=1e-5, atol=1e-5)
    assert losses.std() > 1e-3


@pytest.mark.parametrize("micro", [1, 2, 8])
def test_a_step_follows_the_mean_loss_of_all_its_labels_however_it_is_cut(
    internvl_folder, step_file, records, tmp_path, micro
):
    """Rows have one to four labels: a mean of means would weigh them differently."""
    module = {"optimizer": sgd, "freeze": [], "balance_classes": True}
    data = {"batch_size": 8, "micro_batch_size": micro}
    judge, trainer = run(internvl_folder, tmp_path, step_file, module=module, data=data)
    assert trainer.global_step == 1
    model = judge.lmm.load_model()
    cross_entropies(model, judge.lmm, records, judge.class_weights).mean().backward()
    for name, before in model.named_parameters():
        expected = before.detach() - 0.1 * before.grad
        torch.testing.assert_close(judge.model.get_parameter(name), expected, rtol=1e-4, atol=1e-5)
    assert model.lm_head.weight.grad.norm() > 0.1


def test_responses_without_any_label_are_left_out(internvl_folder, step_file, records, prompts, tmp_path):
    unknown = StepLabels(prompt=prompts[3], steps=("4",), labels=(None,))
    more = save(tmp_path / "more.jsonl", [records[0], unknown, *records[1:], unknown])
    expected, _ = run(internvl_folder, tmp_path / "a", step_file)
    judge, trainer = run(internvl_folder, tmp_path / "b", more)
    assert list(trainer.datamodule.example_sets["train"].examples) == records
    assert torch.equal(judge.model.lm_head.weight, expected.model.lm_head.weight)
    none = save(tmp_path / "none.jsonl", [unknown])
    with pytest.raises(InputError, match=r"none\.jsonl: no step has a label"):
        run(internvl_folder, tmp_path / "c", none)


@pytest.mark.parametrize("balance", [True, False])
def test_balanced_classes_count_the_same_and_weigh_one_on_average(
    internvl_folder, prompts, tmp_path, balance
):
    labels = [(1, 1, 0), (1, 1), (1, None, 1)]
    uneven = [
        StepLabels(prompt=prompt, steps=("red 4.", "blue 2.", "4")[: len(one)], labels=one)
        for prompt, one in zip(prompts, labels, strict=False)
    ]
    module = {"read_out": "head", "balance_classes": balance}
    data = {"batch_size": 3}
    judge, _ = run(internvl_folder, tmp_path, save(tmp_path / "a.jsonl", uneven), module=module, data=data)
    with torch.no_grad():  # a judge that knows nothing: ln 2 a step before weighing
        judge.read_out.head.weight.zero_()
        judge.read_out.head.bias.zero_()
        losses, _, truth, _ = judge.step_losses(collate_steps(judge.lmm, uneven))
    sums = [losses[truth == label].sum().item() / math.log(2) for label in (0, 1)]
    assert sums == pytest.approx([3.5, 3.5] if balance else [1, 6])


# What is refused


@pytest.mark.parametrize("label", [0, 1])
def test_labels_that_are_all_equal_are_refused(internvl_folder, prompts, tmp_path, label):
    same = [StepLabels(prompt=prompt, steps=("red 4.", "4"), labels=(label, None)) for prompt in prompts]
    with pytest.raises(InputError, match=r"same\.jsonl: all steps have the same label"):
        run(internvl_folder, tmp_path, save(tmp_path / "same.jsonl", same))


def test_data_of_a_policy_is_refused(internvl_folder, examples, tmp_path):
    file = str(write_jsonl(tmp_path / "train.jsonl", (example.to_json() for example in examples)))
    judge = ProcessRewardModule(adapter_for(internvl_folder))
    with pytest.raises(InputError, match=r"not a PolicyDataModule; set data\.class_path to mstar_pl\.data"):
        trainer_of(tmp_path).fit(judge, PolicyDataModule(train=file, batch_size=4))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"positive": "good"}, "'good' is 4 tokens"),
        ({"lora": LoRA(), "freeze": ["vision"]}, r"remove model\.freeze"),
        ({"freeze": ["vision", "projector", "language"]}, "all parameter groups are frozen"),
    ],
)
def test_contradictions_are_refused_before_training(internvl_folder, step_file, tmp_path, module, message):
    with pytest.raises(InputError, match=message):
        run(internvl_folder, tmp_path, step_file, module=module)


# What is trained


def moved_groups(judge):
    """Return the groups of which all, and of which some parameters are not those of the model folder."""
    moved = {}
    for name, before in judge.lmm.load_model().named_parameters():
        group = judge.lmm.group(judge.model, name)
        moved.setdefault(group, []).append(not torch.equal(before, judge.model.get_parameter(name)))
    return [{group for group in moved if test(moved[group])} for test in (all, any)]


def test_vision_tower_is_frozen_unless_told_otherwise(family_folder, step_file, tmp_path):
    judge, _ = run(family_folder, tmp_path / "a", step_file, limit_train_batches=2)
    rest = {"projector", "language"}
    assert moved_groups(judge) == [rest, rest]
    module = {"freeze": []}
    judge, _ = run(family_folder, tmp_path / "b", step_file, module=module, limit_train_batches=2)
    assert moved_groups(judge)[1] == {"vision", *rest}


def test_low_rank_updates_and_head_are_trained_and_nothing_else(internvl_folder, step_file, tmp_path):
    module = {"lora": LoRA(rank=2), "read_out": "head"}
    start, _ = run(internvl_folder, tmp_path / "a", step_file, module=module, max_epochs=0)
    start = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    judge, _ = run(internvl_folder, tmp_path / "b", step_file, module=module, limit_train_batches=4)
    moved = {name for name, tensor in judge.state_dict().items() if not torch.equal(tensor, start[name])}
    assert moved == {name for name in start if "lora_" in name or name.startswith("read_out.head.")}


def test_gradient_checkpointing_gives_the_same_weights(internvl_folder, step_file, tmp_path):
    plain, _ = run(internvl_folder, tmp_path / "a", step_file, limit_train_batches=4)
    module = {"gradient_checkpointing": True}
    again, _ = run(internvl_folder, tmp_path / "b", step_file, module=module, limit_train_batches=4)
    torch.testing.assert_close(plain.model.lm_head.weight, again.model.lm_head.weight, rtol=1e-5, atol=1e-6)


# Validation


def test_validation_metrics_are_those_of_their_definitions(internvl_folder, step_file, records, tmp_path):
    """Three batches, and a second epoch that must not remember the first."""
    module = {"optimizer": lambda params: torch.optim.AdamW(params, lr=3e-3), "balance_classes": True}
    data = {"val": step_file, "eval_batch_size": 3}
    judge, trainer = run(internvl_folder, tmp_path, step_file, module=module, data=data, max_epochs=2)
    judge.model.eval()
    with torch.no_grad():
        judged = [
            [
                (p.item(), y > 0)
                for p, y in zip(plain_probabilities(judge.model, judge.lmm, one), one.labels, strict=True)
                if y is not None
            ]
            for one in records
        ]
        loss = cross_entropies(judge.model, judge.lmm, records).mean().item()
    steps = [pair for row in judged for pair in row]
    right = [p for p, y in steps if y]
    wrong = [p for p, y in steps if not y]
    hits = sum(p > 0.5 for p in right)
    false = sum(p > 0.5 for p in wrong)
    bins = [[(p, y) for p, y in steps if low / 10 < p <= (low + 1) / 10] for low in range(10)]

    def first_error(flags):
        return flags.index(False) if False in flags else None

    first = [first_error([p > 0.5 for p, _ in row]) == first_error([y for _, y in row]) for row in judged]
    expected = {
        "val/loss": loss,
        "val/step_accuracy": sum((p > 0.5) == y for p, y in steps) / len(steps),
        "val/f1": 2 * hits / (hits + false + len(right)),
        "val/auroc": sum((p > q) + (p == q) / 2 for p in right for q in wrong) / (len(right) * len(wrong)),
        "val/calibration_error": sum(abs(sum(y - p for p, y in one)) for one in bins) / len(steps),
        "val/first_error_accuracy": sum(first) / len(first),
    }
    found = {name: value.item() for name, value in trainer.callback_metrics.items() if "val/" in name}
    assert found == pytest.approx(expected, abs=1e-5)
    assert all(0 < value < 1 for name, value in expected.items() if name != "val/loss"), expected


def toy(seed, num, prompts):
    """Responses of three steps in which a step is wrong exactly if it speaks of red."""
    rng = random.Random(seed)
    records = []
    for number in range(num):
        colours = [rng.choice(("red", "blue", "green", "yellow")) for _ in range(3)]
        steps = tuple(f"{colour} {rng.randint(1, 20)} is the sum." for colour in colours)
        labels = tuple(float(colour != "red") for colour in colours)
        text_only = Prompt(id=f"{seed}-{number}", question=f"What is {number} + 2", answer="4")
        prompt = prompts[0] if number % 4 == 0 else text_only
        records.append(StepLabels(prompt=prompt, steps=steps, labels=labels))
    return records


def test_embedded_model_learns_to_tell_wrong_steps_it_has_not_seen(prompts, tmp_path):
    train = save(tmp_path / "train.jsonl", toy(1, 96, prompts))
    val = save(tmp_path / "val.jsonl", toy(2, 32, prompts))
    judge = ProcessRewardModule(adapter_for("embedded", question_style="plain"), optimizer=adamw)
    (before,) = trainer_of(tmp_path).validate(judge, StepDataModule(val=val), verbose=False)
    assert before["val/auroc"] < 0.6
    _, trainer = run(
        "embedded", tmp_path, train, data={"val": val, "batch_size": 16, "micro_batch_size": 16}, max_epochs=2
    )
    after = trainer.callback_metrics
    assert after["val/auroc"] > 0.9
    assert after["val/step_accuracy"] > 0.85
    assert after["val/loss"] < before["val/loss"]
