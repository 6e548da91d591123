"""Each check finds the fault that it is for."""

import shutil

import pytest
import torch

from mstar_pl.commands.check_lmm import check_lmm
from mstar_pl.data.collate import collate_examples
from mstar_pl.models import InternVL, LoRA, adapter_for
from mstar_pl.models.parts import GROUPS
from mstar_pl.modules import PolicyModule
from mstar_pl.parity import CHECKS, Check, Subject, check_all, report
from mstar_pl.parity.sampling import NOISE, perturb
from mstar_pl.parity.subject import draw_examples
from mstar_pl.parity.training import Finding
from mstar_pl.types import InputError
from tests.tiny import BUILDERS

CHECK = {check.name: check for check in CHECKS}


class Faulty(InternVL):
    """An adapter that makes a mistake when it is told to."""

    fault = None

    def encode(self, texts, images):
        inputs = super().encode(texts, images)
        if self.fault == "padding is read":
            inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
        if self.fault == "batch mates" and "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"] / len(texts)
        if self.fault == "another token":
            inputs["input_ids"][:, 1] = inputs["input_ids"][:, 2]
        return inputs

    @property
    def options(self):
        return super().options | ({"processor_options": {}} if self.fault == "options are lost" else {})

    def num_prompt_tokens(self, prompt):
        return super().num_prompt_tokens(prompt) + (self.fault == "a token too many" and prompt.id == "p3")

    def load_model(self, device="cpu"):
        model = super().load_model(device)
        if self.fault == "cast":
            rotary = model.model.language_model.rotary_emb
            rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16)
        if self.fault == "pooled":
            model.model.vision_tower.pooler = torch.nn.Linear(2, 2)
        return model

    def engine_weights(self, named):
        for name, weight in named:
            yield name, weight * (1.01 if self.fault == "another norm" and "model.norm" in name else 1)

    @property
    def banned_token_ids(self):
        return () if self.fault == "nothing is banned" else super().banned_token_ids


def measure(name, subject):
    [result] = check_all(subject, [CHECK[name]])
    return result


@pytest.fixture
def subject(internvl_folder, tmp_path):
    """The training side alone; a fault may be set before it is configured."""

    def make(fault=None, **options):
        lmm = Faulty(internvl_folder, question_style="plain", **options)
        lmm.fault = fault
        made = Subject(PolicyModule(lmm), tmp_path, None)
        made.train()
        return made

    return make


@pytest.mark.parametrize(
    ("name", "fault", "where"),
    [
        ("prompt lengths", "a token too many", "p3 has"),
        ("rotary frequencies", "cast", "model.language_model.rotary_emb.inv_freq"),
        ("gradients", "pooled", "model.vision_tower.pooler.weight is not reached"),
        ("padded loss", "batch mates", "largest at p"),
        ("left padding", "padding is read", "largest at p"),
        ("save and load", "options are lost", "RuntimeError"),
    ],
)
def test_faults_of_training_are_found(subject, name, fault, where):
    result = measure(name, subject(fault, processor_options={"max_patches": 2}))
    assert result.outcome == "failed"
    assert where in result.remark
    assert CHECK[name].advice in result.remark


def test_a_parameter_that_is_used_though_it_is_said_not_to_be_is_found(subject):
    found = subject()
    found.lmm.never_used = "language_model.norm"
    result = measure("gradients", found)
    assert result.outcome == "failed"
    assert "model.language_model.norm.weight is reached though never_used names it" in result.remark


def test_known_gaps_are_told_apart_up_to_their_size(subject):
    found = subject("a token too many")
    found.lmm.known_gaps = {"prompt lengths": (1, "wide pictures")}
    result = measure("prompt lengths", found)
    assert (result.outcome, result.remark) == ("known gap", "at most 1 here: wide pictures")
    found.lmm.known_gaps = {"prompt lengths": (0, "none")}
    assert measure("prompt lengths", found).outcome == "failed"


def test_an_error_is_a_failure_and_nan_is_one(subject):
    def broken(_):
        raise KeyError("pixel_values")

    checks = [
        Check("broken", broken, (0, 0), "mend it"),
        Check("undefined", lambda _: Finding(float("nan")), (1, 1), "mend it, too"),
    ]
    results = list(check_all(subject(), checks))
    assert [one.outcome for one in results] == ["failed", "failed"]
    assert "KeyError: 'pixel_values'; mend it" in results[0].remark
    assert "| undefined | failed | nan " in report(results)


def test_weights_that_are_nan_pass_no_check_of_numbers(subject):
    broken = subject()
    broken.model.lm_head.weight.data[5] = torch.nan
    for name in ("padded loss", "left padding", "save and load"):
        result = measure(name, broken)
        assert (result.outcome, str(result.size)) == ("failed", "nan"), name


def test_without_a_training_step_nothing_else_is_checked(internvl_folder, tmp_path):
    broken = shutil.copytree(internvl_folder, tmp_path / "broken")
    (broken / "chat_template.jinja").unlink()
    first, *others = check_all(Subject(PolicyModule(InternVL(str(broken))), tmp_path, None))
    assert (first.name, first.outcome) == ("training step", "failed")
    assert "does not have a chat template" in first.remark
    assert {(one.outcome, one.remark) for one in others} == {("left out", "the training step failed")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_low_rank_updates_are_merged_before_an_export_is_compared(internvl_folder, tmp_path, dtype):
    module = PolicyModule(InternVL(internvl_folder, question_style="plain", dtype=dtype), lora=LoRA(rank=4))
    subject = Subject(module, tmp_path, None)
    subject.train()
    perturb([one for name, one in module.model.named_parameters() if "lora_" in name], 0.2)
    result = measure("save and load", subject)
    assert result.outcome == "passed", result


@pytest.mark.parametrize(("family", "dtype"), [("internvl", "float32"), ("minicpmv4_6", "bfloat16")])
def test_a_group_that_stays_behind_in_a_sync_shows(tmp_path, family, dtype):
    lmm = adapter_for(str(BUILDERS[family](tmp_path)), question_style="plain", dtype=dtype)
    batch = collate_examples(lmm, draw_examples(tmp_path, lmm.max_images)[:1])
    labels_T = batch.pop("labels")[0, 1:]
    changed, limit = lmm.load_model(), CHECK["after a sync"].limits[dtype == "bfloat16"]
    initial = {name: weight.clone() for name, weight in changed.state_dict().items()}
    perturb(changed.parameters(), NOISE[dtype])
    trained = changed.state_dict()

    def log_probabilities(state):
        changed.load_state_dict(state)
        with torch.no_grad():
            return changed(**batch).logits[0, :-1].float().log_softmax(-1)[labels_T >= 0]

    whole = log_probabilities({name: weight.clone() for name, weight in trained.items()})
    for group in GROUPS:
        behind = {
            name: weight.clone() if lmm.group(changed, name) != group else initial[name]
            for name, weight in trained.items()
        }
        assert (log_probabilities(behind) - whole).abs().max() > 2 * limit, group


def test_without_an_engine_its_checks_are_left_out(subject):
    results = list(check_all(subject()))
    assert {one.name for one in results if one.outcome == "left out"} == {
        check.name for check in CHECKS if check.with_engine
    }


def test_the_command_prints_the_table_and_fails_when_a_check_does(internvl_folder, capsys):
    check_lmm(PolicyModule(InternVL(internvl_folder)), engine="none")
    assert "| padded loss        | passed " in capsys.readouterr().out
    lmm = Faulty(internvl_folder)
    lmm.fault = "a token too many"
    with pytest.raises(InputError, match="1 of 14 checks failed: prompt lengths"):
        check_lmm(PolicyModule(lmm), engine="none")
    assert "override LMM.num_prompt_tokens" in capsys.readouterr().out
    with pytest.raises(InputError, match="--max_tokens is 0"):
        check_lmm(PolicyModule(lmm), engine="none", max_tokens=0)


@pytest.mark.engine
def test_faults_between_training_and_engine_are_found(internvl_folder, tmp_path):
    from tests.parity.test_families import start

    lmm = Faulty(internvl_folder, question_style="plain")
    subject = Subject(PolicyModule(lmm), tmp_path, start)
    subject.train()
    try:
        sampled = {check.name: measure(check.name, subject) for check in CHECKS if check.with_engine}
        assert {one.outcome for one in sampled.values()} == {"passed"}
        for name, fault in [
            ("prompt tokens", "another token"),
            ("log-probabilities", "another token"),
            ("greedy", "another token"),
            ("after a sync", "another norm"),
            ("low-rank updates", "another norm"),
            ("placeholders", "nothing is banned"),
        ]:
            lmm.fault = fault
            assert measure(name, subject).outcome == "failed", name
    finally:
        subject.close()
