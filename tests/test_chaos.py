"""A short run of `bin/chaos`: real processes, killed and resumed, end as undisturbed ones do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "bin/chaos"


@pytest.mark.engine
@pytest.mark.processes
@pytest.mark.timeout(600)
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path):
    command = [sys.executable, str(CHAOS), "--kills", "4", "--seed", "3", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 kills of \d+ runs", done.stdout, re.MULTILINE)
    assert "mismatches: 0" in done.stdout
