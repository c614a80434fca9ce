"""sphinx-gallery with show_memory, unmodified: the memory that it prints below each example."""
import re
import subprocess
import sys

EXAMPLE = '''"""
A big example
=============
"""
kept = b"x" * (150 << 20)
print(len(kept))
'''


def test_show_memory(tmp_path):
    source = tmp_path / "source"
    examples = tmp_path / "examples"
    source.mkdir()
    examples.mkdir()
    (source / "conf.py").write_text(
        "extensions = ['sphinx_gallery.gen_gallery']\n"
        "sphinx_gallery_conf = {'examples_dirs': '../examples', 'gallery_dirs': 'gallery', 'show_memory': True,\n"
        "                       'filename_pattern': 'plot_'}\n"
    )
    (source / "index.rst").write_text("Title\n=====\n\n.. toctree::\n\n   gallery/index\n")
    (examples / "README.txt").write_text("Gallery\n=======\n")
    (examples / "plot_big.py").write_text(EXAMPLE)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(source), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    page = (source / "gallery" / "plot_big.rst").read_text()
    shown = re.search(r"Estimated memory usage:\*\* +(\d+) MB", page)
    assert shown, page
    assert int(shown.group(1)) >= 145
