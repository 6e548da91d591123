"""A small training run of a process reward model, shared by its tests."""

from lightning.pytorch import Trainer, seed_everything

from mstar_pl.callbacks import ResumeCheckpoint
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.data.steps import StepDataModule
from mstar_pl.models import adapter_for
from mstar_pl.modules import ProcessRewardModule
from tests.modules.training import adamw

RESPONSES = [
    (("red 4.", "2 + 2 = 4.", "# Answer\n\n4"), (1, 1, 1)),
    (("4",), (0,)),
    (("I count: red 4.", "blue 2.", "4 + 2 = 7.", "# Answer\n\n7"), (1, 0.75, 0, 0)),
    (("The sum is 5.", "# Answer\n\n5"), (None, 0.25)),
    (("red 2, blue 2.", "2 + 2 = 5.", "So 5.", "# Answer\n\n5"), (None, 0, None, None)),
    (("The answer is 4.", "# Answer\n\n4"), (1, 1)),
    (("blue 3.", "# Answer\n\n3"), (0, 0)),
    (("green 1.", "1 + 3 = 4.", "# Answer\n\n4"), (1, 1, 1)),
]


def save(path, records):
    return str(write_jsonl(path, (record.to_json() for record in records)))


def trainer_of(root, callback=None, **options):
    return Trainer(
        default_root_dir=root,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[callback] if callback else [],
        enable_checkpointing=isinstance(callback, ResumeCheckpoint),
        **{"max_epochs": 1} | options,
    )


def run(folder, root, step_file, *, module=None, data=None, ckpt_path=None, **trainer_options):
    """Train 4 steps of 2 responses an epoch, in micro-batches of one."""
    seed_everything(0)
    options = {"train": step_file, "batch_size": 2, "micro_batch_size": 1}
    trainer = trainer_of(root, **trainer_options)
    lmm = adapter_for(folder, question_style="plain")
    judge = ProcessRewardModule(lmm, **{"optimizer": adamw} | (module or {}))
    trainer.fit(judge, StepDataModule(**options | (data or {})), ckpt_path=ckpt_path)
    return judge, trainer
