"""mprof plot with matplotlib."""
import subprocess
import sys

import matplotlib
import pytest


@pytest.mark.parametrize("options", [[], ["-f", "-s"], ["-n", "-t", "title", "-w", "0,1"]])
def test_a_picture(tmp_path, options):
    (tmp_path / "mprofile_20260102030405.dat").write_text(
        "CMDLINE a\nMEM 10.0 1000.0\nMEM 20.0 1001.0\nCHLD 1 3.0 1001.0\nFUNC m.f 10.0 1000.1 20.0 1000.9 0\n"
    )
    subprocess.run(
        [sys.executable, "-m", "mprof", "plot", "-o", "a.png"] + options, cwd=str(tmp_path), check=True, timeout=120
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and matplotlib.__version__
