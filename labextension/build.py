"""Builds the JupyterLab extension into rf_notebook/labextension.

With ``--check`` it only tells whether that is needed.

The built files are committed, so that installing needs no node; ``source.sha256`` beside them says
what they were built from. Building needs node and ``jlpm`` (``pip install -e '.[test]'`` brings
both).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
#: jlpm and the builder look for node on the path; this environment's comes first.
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
HERE = Path(__file__).parent
BUILT = HERE.parent / "rf_notebook" / "labextension"
STAMP = BUILT / "source.sha256"
#: What the built files come from.
SOURCES = (
    "src/**/*.ts",
    "src/**/*.tsx",
    "style/*",
    "schema/*.json",
    "package.json",
    "yarn.lock",
    "tsconfig.json",
)


def source_digest() -> str:
    """The sha256 of all sources, names and contents."""
    found = {
        path for pattern in SOURCES for path in HERE.glob(pattern) if ".test." not in path.name
    }
    sha = hashlib.sha256()
    for path in sorted(found):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(HERE).as_posix()} {len(content)}\n".encode() + content)
    return sha.hexdigest()


def is_current() -> bool:
    """Whether the committed files were built from the sources as they are."""
    return STAMP.exists() and STAMP.read_text().strip() == source_digest()


def build() -> None:
    """Install what building needs, compile, bundle, stamp."""
    for name in ("lib", BUILT):
        shutil.rmtree(
            HERE / name, ignore_errors=True
        )  # chunk names hold hashes: old ones would stay
    for command in (["install", "--immutable"], ["compile"], ["bundle"]):
        subprocess.run([BIN / "jlpm", *command], cwd=HERE, env=ENVIRONMENT, check=True)
    STAMP.write_text(source_digest() + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="build nothing; fail when the built files are old"
    )
    if not parser.parse_args().check:
        build()
    elif not is_current():
        sys.exit(
            "rf_notebook/labextension was built from other sources: run python labextension/build.py and commit."
        )
