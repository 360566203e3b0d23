"""Sphinx configuration; the reference pages are written from the registry before each build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from reference import write_reference

project = "gradtx"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "gradtx"
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]

write_reference(Path(__file__).parent / "reference")
