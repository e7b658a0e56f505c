"""The files in docs/clusters: a manifest, an image and a job script that start a cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.head import free_port

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "docs" / "clusters"
#: Runs what follows its own options, as on the node that is meant.
SRUN = """#!/bin/bash
echo "srun $*" >> "$RF_TEST_LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
#: Listens where the head would, until the node that joins has gone again.
RAY = """#!{python}
import os, socket, sys, time

print("ray", *sys.argv[1:], file=open(os.environ["RF_TEST_LOG"], "a"))
if "--head" in sys.argv:
    port = next(one for one in sys.argv if one.startswith("--port=")).removeprefix("--port=")
    with socket.create_server(("127.0.0.1", int(port))):
        time.sleep(60)
time.sleep(1)
"""


def test_the_manifest_has_the_version_of_the_image_and_of_the_constraints():
    cluster = yaml.safe_load((CLUSTERS / "kuberay.yaml").read_text())
    spec = cluster["spec"]
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert spec["authOptions"] == {"mode": "token"}, "nobody joins without the token"
    image = re.search(
        r"^FROM rayproject/ray:([\d.]+)-py", (CLUSTERS / "Dockerfile").read_text(), re.M
    )
    (constrained,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert spec["rayVersion"] == image[1] == constrained
    (worker,) = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "nothing trains on the head"


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_job_starts_a_head_and_lets_the_other_nodes_join(tmp_path, nodes):
    programs = {
        "srun": SRUN,
        "scontrol": "#!/bin/bash\nprintf 'n1\\nn2\\nn3\\n'\n",
        "hostname": "#!/bin/bash\necho 127.0.0.1\n",
        "ray": RAY.format(python=sys.executable),
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    log, token = tmp_path / "log", tmp_path / "home" / "token"
    port = free_port()
    job = subprocess.Popen(
        ["bash", CLUSTERS / "slurm.sh"],
        env={
            "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RF_TEST_LOG": str(log),
            "RF_RAY_PORT": str(port),
            "RAY_AUTH_TOKEN_PATH": str(token),
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_JOB_NUM_NODES": str(nodes),
        },
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = [job.stdout.readline() for _ in range(3)]
        assert f'cluster="127.0.0.1:{port}"' in said[0]
        if nodes > 1:
            assert job.wait(20) == 0, "it ends when one of its parts does"
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
    done = log.read_text()
    head = f"--head --node-ip-address=127.0.0.1 --port={port} --ray-client-server-port=10001"
    assert f"srun --nodes=1 --ntasks=1 --nodelist=n1 ray start {head}" in done
    joins = f"srun --nodes=2 --ntasks=2 --exclude=n1 ray start --address=127.0.0.1:{port} --block"
    assert (joins in done) == (nodes > 1)
    assert len(token.read_text()) == 64
    assert token.stat().st_mode & 0o077 == 0, "nobody else reads it"
