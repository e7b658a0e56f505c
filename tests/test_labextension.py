"""The committed build of the JupyterLab extension.

Made from these sources, small, and without addresses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "rf_notebook" / "labextension"


def build_script():
    spec = importlib.util.spec_from_file_location(
        "build_labextension", ROOT / "labextension" / "build.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_build_was_made_from_the_sources_as_they_are():
    assert build_script().is_current(), "run `make extension` and commit what it builds"


def test_a_changed_source_is_noticed(monkeypatch, tmp_path):
    script = build_script()
    before = script.source_digest()
    for name in ("src", "style", "schema"):
        (tmp_path / name).mkdir()
    (tmp_path / "src" / "index.ts").write_text("export {};")
    monkeypatch.setattr(script, "HERE", tmp_path)
    assert script.source_digest() != before
    one = script.source_digest()
    (tmp_path / "src" / "index.test.ts").write_text("a test is no source of the build")
    assert script.source_digest() == one
    (tmp_path / "src" / "index.ts").write_text("export { };")
    assert script.source_digest() != one


def test_there_is_no_file_of_an_earlier_build():
    entry = json.loads((BUILT / "package.json").read_text())["jupyterlab"]["_build"]["load"]
    assert [file.name for file in (BUILT / "static").glob("remoteEntry*")] == [Path(entry).name]


def test_the_lock_file_names_no_registry():
    lock = (ROOT / "labextension" / "yarn.lock").read_text()
    assert "://" not in lock
    assert "npmRegistryServer" not in (ROOT / "labextension" / ".yarnrc.yml").read_text()


def test_the_extension_and_the_package_have_one_version():
    from rf_notebook import __version__

    assert (
        json.loads((ROOT / "labextension" / "package.json").read_text())["version"] == __version__
    )


def test_no_source_makes_markup_of_texts_or_hides_from_the_compiler():
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write|@ts-|\bany\b[;,)>\]]|\bas any\b"
    )
    for file in (ROOT / "labextension" / "src").rglob("*.ts*"):
        assert not forbidden.search(file.read_text()), file


@pytest.mark.slow
def test_installing_the_wheel_enables_the_extension_and_uninstalling_removes_it(tmp_path):
    """In an environment of its own, which borrows this one's JupyterLab."""

    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("JUPYTER", "JPY_", "PYTHON"))
    }
    environment["JUPYTER_CONFIG_DIR"] = environment["JUPYTER_DATA_DIR"] = str(tmp_path / "own")

    def run(*command):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        return re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("rf_notebook-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith("rf_notebook/labextension/")], (
        "the assets are there once"
    )
    assert not [name for name in names if "node_modules" in name or name.endswith((".ts", ".tsx"))]
    run(sys.executable, "-m", "venv", tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    site.joinpath("borrowed.pth").write_text("\n".join(borrowed))

    def listed():
        return run(python, "-c", "from jupyterlab.labextensions import main; main()", "list")

    assert "rf-notebook" not in listed()
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    assert "rf-notebook v0.1.0 enabled OK (python, rf-notebook)" in listed()
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "rf-notebook")
    assert "rf-notebook" not in listed()
    assert not (tmp_path / "fresh" / "share" / "jupyter" / "labextensions" / "rf-notebook").exists()
