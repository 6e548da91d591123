"""The memory that a training takes, as the allocator sees it; `bin/bench-plan` uses it, too."""

import gc

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from mstar_pl.data.batches import Batch


class Recorder(Callback):
    """Record the most memory that is allocated at once between the start and the end of training."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.peak = 0

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin."""
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        held = [*module.parameters(), *module.buffers(), *self.batch.values()]
        self.held = sum(one.nbytes for one in {one.data_ptr(): one for one in held}.values())
        gc.collect()  # what an earlier recording saw allocated would be seen freed in this one
        self.recording = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.recording.start()

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """End."""
        if module.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
            return
        self.recording.stop()
        events = [one for one in self.recording.profiler.kineto_results.events() if one.name() == "[memory]"]
        now = self.peak = self.held
        for event in sorted(events, key=lambda one: one.start_ns()):
            now += event.nbytes()
            self.peak = max(self.peak, now)
