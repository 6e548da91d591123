"""Two processes that differ, or of which one hangs; run by torchrun."""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.strategies import DDPStrategy

from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.distributed import Processes
from mstar_pl.loops import SelfEvolvingTrainer
from mstar_pl.loops.environment import check_environment
from mstar_pl.models import adapter_for
from mstar_pl.modules import PolicyModule
from mstar_pl.types import InputError


def check(out):
    """Check like and unlike environments; write what each process was told."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    told = {}
    for what in ("nothing", "folder", "configuration"):
        parser = LightningArgumentParser()
        parser.add_argument("--lr", type=float)
        config = Namespace(lr=1e-6 * (1 + rank * (what == "configuration")))
        trainer = Trainer(
            default_root_dir=out / (f"run-{rank}" if what == "folder" else "run"),
            accelerator="cpu",
            logger=False,
            callbacks=[SaveConfigCallback(parser, config)],
        )
        try:
            check_environment(trainer, Processes(rank, 2), limit=1)
            told[what] = "fine"
        except InputError as error:
            told[what] = str(error)
    (out / f"told-{rank}.json").write_text(json.dumps(told))


class HangsInOne(PolicyModule):
    """The second process stops in the middle of an epoch, and lives on."""

    def training_step(self, batch, batch_idx):
        if self.global_rank == 1 and batch_idx == 3:
            time.sleep(600)
        return super().training_step(batch, batch_idx)


def hang(out, folder, rows):
    """Train until one hangs."""
    trainer = SelfEvolvingTrainer(
        strategy=DDPStrategy(timeout=timedelta(seconds=10)),
        accelerator="cpu",
        devices=2,
        default_root_dir=out,
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(HangsInOne(adapter_for(folder)), PolicyDataModule(train=rows, batch_size=4))


if __name__ == "__main__":
    {"check": check, "hang": hang}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
