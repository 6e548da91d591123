"""Nothing that is read from disk is executed."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from mstar_pl.models import adapter_for
from mstar_pl.models.families import ADAPTER_FILE
from mstar_pl.types import InputError, Prompt
from tests.modules.training import run

EVIL = "from pathlib import Path\nPath({path!r}).write_text('hacked')\n"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "hacked")


def test_a_checkpoint_with_code_is_refused(internvl_folder, train_file, tmp_path):
    run(internvl_folder, tmp_path, train_file, max_epochs=1)
    last = tmp_path / "checkpoints/last.ckpt"
    contents = torch.load(last, weights_only=True) | {"extra": Evil(str(tmp_path / "hacked"))}
    torch.save(contents, last)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        run(internvl_folder, tmp_path, train_file, ckpt_path="last")
    assert not (tmp_path / "hacked").exists()


def test_code_in_a_model_folder_is_not_run(internvl_folder, tmp_path):
    folder, trace = tmp_path / "model", tmp_path / "hacked"
    shutil.copytree(internvl_folder, folder)
    (folder / "evil.py").write_text(EVIL.format(path=str(trace)))
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        path = folder / name
        settings = json.loads(path.read_text()) | {
            "auto_map": {
                "AutoConfig": "evil.Config",
                "AutoModelForImageTextToText": "evil.Model",
                "AutoProcessor": "evil.Processor",
                "AutoTokenizer": ["evil.Tokenizer", None],
            }
        }
        path.write_text(json.dumps(settings))
    adapter = adapter_for(str(folder), question_style="plain")
    assert adapter.render(Prompt(id="1", question="How many?"))
    assert type(adapter.load_model()).__module__.startswith("transformers.")
    assert not trace.exists()


@pytest.mark.parametrize(
    "class_path", ["runpy.run_path", "pathlib.Path", "mstar_pl.models.families.adapter_for"]
)
def test_an_export_names_an_adapter_and_nothing_else(internvl_folder, tmp_path, class_path):
    folder, trace = tmp_path / "model", tmp_path / "hacked"
    shutil.copytree(internvl_folder, folder)
    (folder / "__main__.py").write_text(EVIL.format(path=str(trace)))
    (folder / ADAPTER_FILE).write_text(json.dumps({"class_path": class_path, "init_args": {}}))
    with pytest.raises(InputError, match="is no adapter"):
        adapter_for(str(folder))
    assert not trace.exists()
