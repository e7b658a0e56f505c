"""Files from people who mean no good, and a process that opens them under an audit hook.

``python -m tests.replay.hostile FOLDER VALID.ipynb`` writes some 250 of them into FOLDER and opens
each in every way.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import resource
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CODE = "__import__('os').system('touch pwned')"
TEXTS = [
    CODE,
    "{{7*7}}${7*7}%(x)s",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "../../../../etc/cron.d/x",
    "\x1b]0;owned\x07\x1b[2J",
    "'; DROP TABLE events; --",
    "\u202e\u0000\ufffe",
    "%rapidfire end --now",
    "A" * 200_000,
]
VALUES: list[Any] = [None, [], {}, -1, 10**30, 1e400, "x", True, [[[]]], {"$object": "os.system"}]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in a record, lists by their first element."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in list(value)[:8]:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def changed(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(record)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def write_all(folder: Path, valid: Path) -> list[Path]:
    """Writes the files; returns them."""
    text = valid.read_text()
    notebook = json.loads(text)
    mime = "application/vnd.rf-notebook.experiment+json"
    holder = next(
        output["data"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if mime in output["data"]
    )
    record = holder[mime]
    made: list[Path] = []

    def put(name: str, content: str | bytes) -> None:
        path = folder / f"{len(made):03}-{name}"
        path.write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        )
        made.append(path)

    def put_record(name: str, content: Any) -> None:
        put(f"{name}.json", json.dumps(content))

    for i in range(1, 12):  # cut off
        put("cut.ipynb", text[: len(text) * i // 12])
    found = [path for path in places(record) if len(path) <= 5]
    for i, path in enumerate(found):  # another type, and text that is code, in every field
        put_record("type", changed(record, path, VALUES[i % len(VALUES)]))
        put_record("text", changed(record, path, TEXTS[i % len(TEXTS)]))
    for name in ("../../x", "/etc/passwd", "..", "a/b", "CON\n", "x" * 500, ""):
        put_record("name", changed(record, ("experiment",), name))
    for i, cell in enumerate(TEXTS):  # code in cells, in notebooks whose record is right
        other = copy.deepcopy(notebook)
        other["cells"][i % len(other["cells"])]["source"] = cell
        put("cells.ipynb", json.dumps(other))
    for value in VALUES:
        put("cells-are.ipynb", json.dumps({**notebook, "cells": value}))
        put("cell-is.ipynb", json.dumps({**notebook, "cells": [value, *notebook["cells"]]}))
    put_record("version", {**record, "version": 99})
    put_record("version", {**record, "version": [1] * 1000})
    put_record("more", {**record, "__class__": "os.system", "surprise": 1})
    put("empty.ipynb", "")
    put("nul.ipynb", b"\0" * 4096)
    put("utf16.ipynb", text.encode("utf-16"))
    put("surrogate.json", json.dumps(changed(record, ("spec", "cells", 0), "\udcff")))
    put("deep.json", "[" * 400_000)
    put("deep.ipynb", '{"cells":' + '[{"a":' * 90_000)
    put("digits.json", '{"format": "rf_notebook experiment", "version": ' + "9" * 100_000 + "}")
    put("wide.json", "[" + "1," * 2_000_000 + "1]")
    put("keys.json", "{" + ",".join(f'"{i}":{i}' for i in range(300_000)) + "}")
    put("huge.ipynb", b'{"cells": ["' + b"A" * (40 * 2**20) + b'"]}')
    put("nan.json", json.dumps(changed(record, ("operations", 0, "at"), float("nan"))))
    put("pickle.ipynb", pickle.dumps(Evil()))
    put("pickle.zip", pickle.dumps(Evil()))
    put("html.ipynb", "<html><script>alert(1)</script></html>")
    many = {**record, "operations": record["operations"] * 20_000}
    put_record("operations", many)
    clones = [{**one, "what": "clone", "config": None} for one in record["operations"]] * 50
    put_record("clones", {**record, "operations": clones})

    def put_zip(name: str, entries: dict[str, bytes], mode: int = zipfile.ZIP_DEFLATED) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", mode) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        put(f"{name}.zip", stream.getvalue())

    good = json.dumps(record).encode()
    put_zip("bomb", {"experiment.ipynb": b"\0" * (600 * 2**20)})
    put_zip("bomb-record", {"record.json": b" " * (300 * 2**20)})
    put_zip("slip", {"../../evil.py": b"x", "/abs/evil.py": b"x", "record.json": good})
    put_zip("many", {f"f{i}": b"" for i in range(5000)})
    put_zip("names", {"experiment.ipynb/..": b"x", "record.json/": b""})
    put_zip(
        "pickles",
        {
            "record.json": good,
            "adapter_model.safetensors": pickle.dumps(Evil()),
            "x.pkl": pickle.dumps(Evil()),
        },
    )
    put_zip("two", {"record.json": good, "experiment.ipynb": json.dumps({"cells": []}).encode()})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("record.json", good)
    put("broken.zip", stream.getvalue()[:-30])
    put("twisted.zip", stream.getvalue().replace(b"PK\x01\x02", b"PK\x01\x03"))
    link = zipfile.ZipInfo("record.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    put("link.zip", stream.getvalue())

    def put_folder(name: str) -> Path:
        path = folder / f"{len(made):03}-{name}"
        path.mkdir()
        made.append(path)
        return path

    (put_folder("folder-link") / "record.json").symlink_to("/etc/passwd")
    (put_folder("folder-loop") / "record.json").symlink_to("record.json")
    os.mkfifo(put_folder("folder-fifo") / "experiment.ipynb")
    (put_folder("folder-device") / "record.json").symlink_to("/dev/zero")
    (put_folder("folder-in-folder") / "record.json").mkdir()
    put_folder("folder-empty")
    disguised = put_folder("folder-pickles")
    (disguised / "record.json").write_bytes(good)
    (disguised / "adapter_model.safetensors").write_bytes(pickle.dumps(Evil()))
    (disguised / "sitecustomize.py").write_text(CODE)
    (disguised / "rf_notebook.py").write_text(CODE)
    path = folder / f"{len(made):03}-link.ipynb"
    path.symlink_to("/etc/passwd")
    made.append(path)
    path = folder / f"{len(made):03}-fifo.ipynb"
    os.mkfifo(path)
    made.append(path)
    made += [
        folder / "not-there.ipynb",
        Path("/dev/zero"),
        Path("/proc/self/mem"),
        folder / ("n" * 5000),
    ]
    return made


#: What nobody may do while a stranger's file is looked at.
FORBIDDEN = [
    "exec",
    "compile",
    "import",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.",
    "pickle.find_class",
    "marshal.loads",
    "ctypes.",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.",
    "tempfile.",
    "webbrowser.",
    "urllib.Request",
]


def main() -> None:
    from rf_notebook import ConfigError
    from rf_notebook.shared import SharedExperiment

    folder, valid = map(Path, sys.argv[1:])
    paths = write_all(folder, valid)
    whole = SharedExperiment(valid)
    (
        whole.plan(),
        whole.verify(),
        whole.diff(whole),
        str(whole.plan()),
        repr(whole),
    )  # everything is imported now
    assert b"x".decode("cp437") == "x"  # zipfile's
    broken: list[str] = []
    armed = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not armed:
            return
        if event == "open":
            name, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                broken.append(f"open {name!r:.80} to write")
        elif any(event.startswith(one) if one.endswith(".") else event == one for one in FORBIDDEN):
            broken.append(f"{event} {arguments!r:.120}")

    sys.addaudithook(hook)
    results = []
    for path in paths:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        broken.clear()
        armed = True
        told, outcome = "", "read"
        try:
            shared = SharedExperiment(path)
            shared.verify()
            str(shared.plan(name="elsewhere"))
            shared.diff(whole)
            repr(shared)
        except ConfigError as error:
            outcome, told = "refused", str(error)
        except BaseException as error:
            outcome, told = "raised", repr(error)[:500]
        armed = False
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        results.append(
            {
                "file": path.name[:60],
                "outcome": outcome,
                "told": told,
                "broken": list(broken),
                "MiB": grown,
            }
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
