"""The loop through the real Trainer: restarts, inheritance, interruptions, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from mstar_pl.callbacks import BestPolicyExport, PolicyExport, ResumeCheckpoint
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import read_rows, write_jsonl
from mstar_pl.data.store import RolloutStore
from mstar_pl.loops import Evolution, SelfEvolvingTrainer
from mstar_pl.models import InternVL, LoRA
from mstar_pl.modules import PolicyModule
from mstar_pl.rewards import TopK
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError
from tests.loops.evolving import (
    SAMPLING,
    KeepAll,
    evolve,
    rollouts,
    transformers,
)


@pytest.mark.parametrize("module", [{}, {"lora": LoRA(rank=2)}], ids=["full", "lora"])
def test_restarts_go_back_to_the_initial_policy(files, tmp_path, module):
    """ReST^EM: the last iteration equals training the initial policy on its rollouts, in one step."""
    module = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.1), "lr_scheduler": None} | module
    step = {"batch_size": 256, "micro_batch_size": 256}
    evolved, trainer = evolve(
        tmp_path,
        files,
        transformers,
        data=step,
        module=module,
        trainer={"max_epochs": 2},
        restart_policy=True,
        restart_optimizer=True,
    )
    assert trainer.global_step == 2
    assert {one.group.weight_version for one in rollouts(tmp_path, 1)} == {1}, "samples of the last policy"
    examples = RolloutStore(tmp_path / "rollouts").examples(1)
    rows = str(write_jsonl(tmp_path / "last.jsonl", (example.to_json() for example in examples)))
    fixed = PolicyModule(InternVL(question_style="plain"), **module)
    once = SelfEvolvingTrainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        max_epochs=1,
    )
    once.fit(fixed, PolicyDataModule(train=rows, max_length=256, **step))
    with fixed.policy_weights() as expected, evolved.policy_weights() as got:
        initial = InternVL(question_style="plain").load_model().state_dict()
        assert got.keys() == initial.keys()
        for name, value in got.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
        moved = max(float((got[name] - initial[name]).abs().max()) for name in got)
    assert moved > 1e-4


def test_continuous_training_inherits_optimizer_and_schedule(files, tmp_path):
    started = []

    def engine(lmm):
        started.append(transformers(lmm))
        return started[-1]

    _, trainer = evolve(tmp_path / "a", files, engine, trainer={"max_epochs": 2})
    assert len(started) == 1, "one engine start a run"
    moments = next(iter(trainer.optimizers[0].state.values()))
    assert int(moments["step"]) == trainer.global_step
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == trainer.global_step
    _, trainer = evolve(
        tmp_path / "b", files, transformers, trainer={"max_epochs": 2}, restart_optimizer=True
    )
    moments = next(iter(trainer.optimizers[0].state.values()))
    assert 0 < int(moments["step"]) < trainer.global_step
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == int(moments["step"])


class NothingIsRight:
    """A reward that accepts no response."""

    def __call__(self, group):
        from mstar_pl.types import Score

        return [Score(outcome="wrong") for _ in group.rollouts]


def test_an_empty_selection_stops_with_the_reason(files, tmp_path):
    with pytest.raises(InputError, match=r"none of 96 responses was selected at temperature 1\.0"):
        evolve(tmp_path, files, transformers, reward=NothingIsRight())


def test_rollouts_of_an_interrupted_iteration_are_used(files, tmp_path):
    """A crash loses the shard being filled; the rest is not sampled again."""

    class Crash(BaseException):
        pass

    class Counting(TransformersEngine):
        asked: ClassVar[list[list[str]]] = []

        def submit(self, requests, progress=""):
            if requests[0].sampling.temperature > 0:
                Counting.asked.append([request.prompt.id for request in requests])
                if len(Counting.asked) == 3:
                    raise Crash
            return super().submit(requests, progress)

    one = {"trainer": {"max_epochs": 1}}
    with pytest.raises(Crash):
        evolve(tmp_path / "a", files, Counting, **one)
    evolve(tmp_path / "a", files, Counting, **one)
    assert Counting.asked[3] == Counting.asked[2], "goes on with the shard that was lost"
    assert sum(map(len, Counting.asked)) == 24 + len(Counting.asked[2])
    evolve(tmp_path / "b", files, transformers, **one)
    assert rollouts(tmp_path / "a", 0) == rollouts(tmp_path / "b", 0)
    asked = len(Counting.asked)
    evolve(tmp_path / "a", files, Counting, selection=TopK(1), **one)
    assert len(Counting.asked) > asked, "another selection is another training set"
    assert (tmp_path / "a" / "rollouts" / "iteration-0000.stale-1").is_dir()


def test_resuming_inside_an_iteration_without_its_rollouts_is_refused(files, tmp_path):
    evolve(tmp_path, files, transformers, callbacks=[KeepAll(every_n_steps=1)], trainer={"max_epochs": 1})
    inside = tmp_path / "checkpoints" / "0-1.ckpt"
    shutil.rmtree(tmp_path / "rollouts")
    with pytest.raises(InputError, match="inside iteration 0, whose rollouts"):
        evolve(tmp_path, files, transformers, resume=str(inside), trainer={"max_epochs": 1})


def test_a_prompt_without_an_answer_is_refused(files, tmp_path):
    rows = [row for _, row in read_rows(Path(files["train"]))]
    for row in rows:
        row["images"] = [str(Path(files["train"]).parent / image) for image in row["images"]]
    rows[7]["answer"] = None
    rows[7]["choices"] = None
    rows[7]["question_type"] = "free_form"
    broken = write_jsonl(tmp_path / "broken.jsonl", rows)
    with pytest.raises(InputError, match=r"broken\.jsonl: prompt 'minivista-0-train-7' has no answer"):
        evolve(tmp_path, {"train": str(broken), "val": files["val"]}, transformers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"interval": 0}}, "is not a percentage"),
        ({"callbacks": [ResumeCheckpoint()], "trainer": {"max_epochs": 2, "max_steps": 3}}, "max_epochs"),
    ],
)
def test_contradictions_are_refused(files, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        evolve(tmp_path, files, transformers, **change)


def test_the_export_must_not_replace_where_training_started(files, tmp_path):
    InternVL().processor.save_pretrained(tmp_path / "policy")
    InternVL().load_model().save_pretrained(tmp_path / "policy")
    policy = PolicyModule(InternVL(str(tmp_path / "policy"), question_style="plain"))
    trainer = SelfEvolvingTrainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False, callbacks=[PolicyExport()]
    )
    with pytest.raises(InputError, match="would replace the model that training starts from"):
        trainer.fit(policy, PolicyDataModule(train=files["train"], batch_size=1))


def test_a_changed_temperature_wins_over_the_checkpoint(files, tmp_path):
    evolve(tmp_path, files, transformers, callbacks=[ResumeCheckpoint()], trainer={"max_epochs": 1})
    cooler = replace(SAMPLING, temperature=0.7)
    _, trainer = evolve(
        tmp_path,
        files,
        transformers,
        callbacks=[ResumeCheckpoint()],
        resume="last",
        trainer={"max_epochs": 2},
        sampling=cooler,
    )
    assert trainer.fit_loop.generation.temperature == 0.7
    fingerprints = [RolloutStore(tmp_path / "rollouts").manifest(i)["fingerprint"] for i in (0, 1)]
    assert [json.loads(one)["sampling"][0]["temperature"] for one in fingerprints] == [1.0, 0.7]


def test_another_rendering_of_the_prompts_is_another_training_set(files, tmp_path):
    for instruction in (None, "Explain the answer."):
        module = {"lmm": InternVL(question_style="plain", instruction=instruction)}
        evolve(tmp_path, files, transformers, module=module, trainer={"max_epochs": 1}, max_degenerate=None)
    assert (tmp_path / "rollouts" / "iteration-0000.stale-1").is_dir()


def test_best_policy_needs_validation_prompts(files, tmp_path):
    with pytest.raises(InputError, match=r"data\.val_prompts"):
        evolve(tmp_path, {"train": files["train"], "val": None}, transformers, callbacks=[BestPolicyExport()])


def test_a_fixed_data_set_is_refused_with_evolution(files, tmp_path):
    trainer = SelfEvolvingTrainer(
        evolution=Evolution(transformers), default_root_dir=tmp_path, accelerator="cpu", max_epochs=1
    )
    with pytest.raises(InputError, match="needs a SelfEvolvingDataModule"):
        trainer.fit(
            PolicyModule(InternVL(question_style="plain")),
            PolicyDataModule(train=files["train"], batch_size=1),
        )


def test_without_evolution_the_trainer_only_trains(files, tmp_path):
    trainer = SelfEvolvingTrainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=1,
        logger=False,
        enable_progress_bar=False,
        callbacks=[PolicyExport()],
    )
    trainer.fit(
        PolicyModule(InternVL(question_style="plain")), PolicyDataModule(train=files["train"], batch_size=1)
    )
    assert trainer.evaluation is None
    assert (tmp_path / "policy" / "config.json").is_file()


def test_a_collapsed_policy_does_not_train_on_its_noise(files, tmp_path):
    """Two tokens are no room for an answer: all responses are cut off."""
    sampling = replace(SAMPLING, max_tokens=2)
    with pytest.raises(
        InputError,
        match=r"iteration 0: 100% of the responses are degenerate \(truncated 100%, .*max_degenerate",
    ):
        evolve(tmp_path, files, transformers, sampling=sampling)
    manifest = RolloutStore(tmp_path / "rollouts").manifest(0)
    assert manifest["metrics"]["rollout/degenerate"] == 1.0
    with pytest.raises(InputError, match="none of 96 responses was selected"):
        evolve(tmp_path, files, transformers, sampling=sampling, max_degenerate=None)
