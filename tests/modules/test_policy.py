"""Policy fine-tuning through the real Trainer: loss, determinism, exact resumption, refusals."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from mstar_pl.callbacks import PolicyExport, ResponseWriter
from mstar_pl.data.collate import collate_examples
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.models import LoRA, adapter_for
from mstar_pl.modules import PolicyModule
from mstar_pl.types import InputError, SamplingConfig
from tests.modules.training import Killed, StopAfter, assert_same, run, sgd, state


def test_two_runs_with_one_seed_are_bit_identical_and_another_seed_is_not(
    internvl_folder, train_file, tmp_path
):
    first, second = (state(*run(internvl_folder, tmp_path / name, train_file, max_epochs=1)) for name in "ab")
    assert_same(first, second)
    other, _ = run(internvl_folder, tmp_path / "c", train_file, data={"seed": 1}, max_epochs=1)
    assert not torch.equal(other.model.lm_head.weight, first[0]["model.lm_head.weight"])


MODULES = {"full": {}, "lora with dropout": {"lora": LoRA(rank=2, dropout=0.1)}}


@pytest.fixture(scope="module")
def uninterrupted(request, internvl_folder, train_file, tmp_path_factory):
    """Options of a module, and what a run of 12 steps ends with."""
    root, module = tmp_path_factory.mktemp("whole"), MODULES[request.param]
    return module, state(*run(internvl_folder, root, train_file, module=module))


@pytest.mark.parametrize(
    ("uninterrupted", "steps"),
    [("full", 2), ("full", 6), ("full", 8), ("lora with dropout", 8)],
    indirect=["uninterrupted"],
)
def test_resumed_run_equals_the_uninterrupted_one(
    internvl_folder, train_file, tmp_path, steps, uninterrupted
):
    """12 steps in 2 epochs; stopped inside the first, at its end, and inside the second."""
    module, whole = uninterrupted
    assert whole[-1] == 12
    root = tmp_path / "stopped"
    if steps == 6:
        run(internvl_folder, root, train_file, module=module, max_epochs=1)
    else:
        with pytest.raises(Killed):
            run(internvl_folder, root, train_file, module=module, callback=StopAfter(every_n_steps=steps))
    assert_same(state(*run(internvl_folder, root, train_file, ckpt_path="last", module=module)), whole)


def test_gradient_does_not_depend_on_the_micro_batches(internvl_folder, train_file, tmp_path):
    """Responses differ in length: a mean of means would weigh their tokens differently."""
    module = {"optimizer": sgd, "lr_scheduler": None}
    heads = []
    for size in (1, 4):
        data = {"micro_batch_size": size, "bucket_steps": 1}
        policy, _ = run(
            internvl_folder, tmp_path / str(size), train_file, data=data, module=module, max_epochs=1
        )
        heads.append(policy.model.lm_head.weight.detach())
    torch.testing.assert_close(*heads, rtol=1e-4, atol=1e-5)


class Weighted(PolicyModule):
    """The later a token of the vocabulary, the more it counts: a term that differs from token to token."""

    def training_losses(self, logits_NV, labels_N, batch):
        """Add the label's own number, in hundreds, times the squared log-normaliser."""
        plain_N = super().training_losses(logits_NV, labels_N, batch)
        return plain_N + labels_N / 100 * logits_NV.logsumexp(-1) ** 2


def test_a_term_of_a_subclass_does_not_depend_on_the_micro_batches(internvl_folder, examples, tmp_path):
    """As the cross entropy does not; and it is trained on, and not measured."""
    file = str(write_jsonl(tmp_path / "train.jsonl", (example.to_json() for example in examples)))
    module = {"optimizer": sgd, "lr_scheduler": None}
    heads, losses = [], []
    for kind, size in ((Weighted, 1), (Weighted, 4), (PolicyModule, 4)):
        data = {"micro_batch_size": size, "bucket_steps": 1}
        root = tmp_path / f"{kind.__name__}-{size}"
        policy, trainer = run(internvl_folder, root, file, data=data, module=module, kind=kind, max_epochs=1)
        heads.append(policy.model.lm_head.weight.detach())
        with torch.no_grad():
            batch = collate_examples(policy.lmm, examples)
            cross_entropy = policy.token_losses(batch)[0].mean()
        losses.append((float(trainer.callback_metrics["val/loss"]), float(cross_entropy)))
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-4, atol=1e-5)
    assert (heads[1] - heads[2]).abs().max() > 1e-3
    for logged, expected in losses:
        assert logged == pytest.approx(expected, rel=1e-4)


def test_loss_is_on_response_tokens_only(family_folder, examples):
    """Against the definition: cross entropy of each response token given everything before it."""
    policy = PolicyModule(adapter_for(family_folder, question_style="plain"))
    policy.model = policy.lmm.load_model()
    batch = collate_examples(policy.lmm, examples)
    with torch.no_grad():
        losses, _, labels = policy.token_losses(batch)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        log_probs = policy.model(**inputs).logits.log_softmax(-1)
    expected = [
        -log_probs[row, column - 1, batch["labels"][row, column]]
        for row in range(len(examples))
        for column in range(batch["labels"].shape[1])
        if batch["labels"][row, column] != -100
    ]
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert labels.shape == losses.shape


def test_gradient_checkpointing_gives_the_same_weights(internvl_folder, train_file, tmp_path):
    plain, _ = run(internvl_folder, tmp_path / "a", train_file, max_epochs=1)
    again, _ = run(
        internvl_folder, tmp_path / "b", train_file, module={"gradient_checkpointing": True}, max_epochs=1
    )
    torch.testing.assert_close(plain.model.lm_head.weight, again.model.lm_head.weight, rtol=1e-5, atol=1e-6)


def test_frozen_tower_stays_and_the_rest_moves(internvl_folder, train_file, tmp_path):
    policy, _ = run(internvl_folder, tmp_path, train_file, module={"freeze": ["vision"]}, max_epochs=1)
    for name, before in policy.lmm.load_model().named_parameters():
        moved = not torch.equal(before, policy.model.get_parameter(name))
        assert moved == (policy.lmm.group(policy.model, name) != "vision"), name


def test_predict_writes_responses_and_test_grades_them(internvl_folder, prompts, tmp_path):
    file = str(write_jsonl(tmp_path / "prompts.jsonl", (prompt.to_json() for prompt in prompts)))
    policy = PolicyModule(adapter_for(internvl_folder), sampling=SamplingConfig(max_tokens=4))
    data = PolicyDataModule(test=file, predict=file, eval_batch_size=3)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        callbacks=[ResponseWriter()],
        enable_progress_bar=False,
    )
    answered = [row for batch in trainer.predict(policy, data) for row in batch]
    rows = [json.loads(line) for line in (tmp_path / "responses.jsonl").read_text().splitlines()]
    assert rows == answered
    assert [row["id"] for row in rows] == [prompt.id for prompt in prompts]
    assert trainer.test(policy, data)[0]["test/accuracy"] == 0.0


def test_export_at_the_end_of_training(internvl_folder, train_file, tmp_path):
    base = tmp_path / "a`<b>"
    base.symlink_to(internvl_folder)
    policy, _ = run(str(base), tmp_path, train_file, callback=PolicyExport(), max_epochs=1)
    assert f"Base: ``{base}``." in (tmp_path / "policy/README.md").read_text()
    exported = adapter_for(str(tmp_path / "policy")).load_model()
    assert torch.equal(exported.lm_head.weight, policy.model.lm_head.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16-true"}, "rotary frequencies"),
        ({"max_steps": 5}, "max_epochs"),
        ({"accumulate_grad_batches": 7}, r"follows from data\.batch_size"),
        ({"limit_train_batches": 3}, "cuts an optimizer step; give a multiple of 2"),
        ({"limit_train_batches": 0.5}, "cuts an optimizer step"),
        ({"overfit_batches": 1}, "do not go with planned batches"),
        ({"callback": GradientAccumulationScheduler({0: 2})}, "do not go with planned batches"),
        ({"data": {"batch_size": 3}}, "not a multiple"),
        ({"data": {"max_length": 5}}, "every example is over max_length 5"),
        ({"data": {"max_length": 60, "overlong": "refuse"}}, r"prompt 'p\d' has \d+ tokens"),
        ({"data": {"train": None}}, r"data\.train is not set"),
        ({"module": {"lora": LoRA(), "freeze": ["vision"]}}, r"remove model\.freeze"),
    ],
)
def test_contradictions_are_refused_before_training(internvl_folder, train_file, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(internvl_folder, tmp_path, train_file, **options)


@pytest.mark.parametrize(
    ("dtype", "lora", "warns"),
    [("float32", None, False), ("bfloat16", None, True), ("bfloat16", LoRA(rank=2), False)],
)
def test_trained_weights_in_bfloat16_are_warned_of(internvl_folder, caplog, dtype, lora, warns):
    policy = PolicyModule(adapter_for(internvl_folder, dtype=dtype), lora=lora)
    policy.trainer = Trainer(accelerator="cpu", logger=False)
    policy.configure_model()
    assert ("rounds small steps away" in caplog.text) == warns


def test_long_examples_are_dropped_with_a_count(internvl_folder, train_file, tmp_path, caplog):
    _, trainer = run(internvl_folder, tmp_path, train_file, data={"max_length": 60}, max_epochs=1)
    kept = trainer.datamodule.example_sets["train"]
    assert 0 < len(kept) < 24
    assert max(kept.lengths) <= 60
    assert f"dropped {24 - len(kept)} of 24 examples over 60 tokens" in caplog.text
