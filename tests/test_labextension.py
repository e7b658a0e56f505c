"""The committed build of the JupyterLab extension: made from these sources, small, and without addresses."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "rf_notebook" / "labextension"


def build_script():
    spec = importlib.util.spec_from_file_location("build_labextension", ROOT / "labextension" / "build.py")
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

    assert json.loads((ROOT / "labextension" / "package.json").read_text())["version"] == __version__


def test_no_source_makes_markup_of_texts_or_hides_from_the_compiler():
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write|@ts-|\bany\b[;,)>\]]|\bas any\b"
    )
    for file in (ROOT / "labextension" / "src").rglob("*.ts*"):
        assert not forbidden.search(file.read_text()), file
