"""Builds a Dockerfile step by step in folders, by chroot, where no Docker engine runs. Root only.

It knows the instructions that packaging/ uses. Every image starts from one given file tree.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = "host-certificates.crt"  # a proxy of this machine may sign with its own


@dataclass
class Stage:
    """One FROM: its file tree and the settings that later steps see."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "root"
    command: list[str] = field(default_factory=list)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile and their arguments."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line.strip())]


def build(file: Path, context: Path, base: Path, folder: Path, arguments: Mapping[str, str] | None = None) -> Stage:
    """Run every instruction; return the last stage. File trees are made in `folder`."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions(file):
        if word == "FROM":
            image, *name = rest.split(" AS ")
            assert image == "debian:bookworm-slim"
            stage = Stage(copy_tree(base, folder / f"stage{len(stages)}"))
            stages[name[0] if name else "last"] = stage
        elif word == "ARG":
            name, _, default = rest.partition("=")
            stage.environment[name] = (arguments or {}).get(name, default)
        elif word == "ENV":
            name, _, value = rest.partition("=")
            stage.environment[name] = value.replace("$PATH", PATH)
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            _copy(rest.split(), stage, stages, context)
        elif word == "RUN":
            _run_step(rest, stage, stages, context)
        elif word in ("ENTRYPOINT", "CMD"):
            stage.command += re.findall(r'"([^"]*)"', rest)
        else:
            assert word in ("VOLUME", "EXPOSE"), word
    return stage


def run(
    root: Path, command: str, *, user: str = "root", folder: str = "/", environment: Mapping[str, str] | None = None
):
    """Run a shell command inside a file tree; return the finished process, output and errors together."""
    settings = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
    if (root / _CERTIFICATES).exists():
        settings |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), f"/{_CERTIFICATES}")
    settings |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    settings |= environment or {}
    inside = f"cd {shlex.quote(folder)} && {command}"
    words = ["chroot", *(["--userspec", f"{user}:{user}"] if user != "root" else []), root, "/bin/sh", "-c", inside]
    return subprocess.run(
        words, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500, check=False
    )


def debootstrap(root: Path, include: str) -> Path:
    """Make a minimal Debian with the network settings of this machine."""
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--include={include}",
        "bookworm",
        root,
        "http://deb.debian.org/debian",
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc", name), root / "etc" / name)
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates:
        shutil.copyfile(certificates, root / _CERTIFICATES)
    return root


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a file tree with owners, modes and links."""
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
    return target


def _run_step(rest: str, stage: Stage, stages: Mapping[str, Stage], context: Path) -> None:
    """Run a RUN; what it mounts is copied, and removed in the end."""
    mounts = re.findall(r"--mount=(\S+)", rest)
    mounted = []
    for mount in mounts:
        keys = dict(part.split("=") for part in mount.split(","))
        source = (stages[keys["from"]].root if "from" in keys else context) / keys["source"].lstrip("/")
        mounted.append(copy_tree(source, stage.root / keys["target"].lstrip("/")))
    command = re.sub(r"--mount=\S+\s*", "", rest)
    done = run(stage.root, command, user=stage.user, folder=stage.folder, environment=stage.environment)
    assert done.returncode == 0, f"RUN {command}\n{done.stdout[-6000:]}"
    for target in mounted:
        shutil.rmtree(target)


def _copy(words: list[str], stage: Stage, stages: Mapping[str, Stage], context: Path) -> None:
    if words[0].startswith("--from="):
        copy_tree(stages[words[0].removeprefix("--from=")].root / words[1][1:], stage.root / words[2][1:])
        return
    assert words == [".", "."]
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=context, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        target = stage.root / stage.folder[1:] / name
        if os.path.lexists(context / name):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / name, target, follow_symlinks=False)
