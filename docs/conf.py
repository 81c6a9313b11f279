"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

# Airflow is imported for its operator's signature. It has no home here, and reads none of yours.
os.environ |= {"_AIRFLOW__AS_LIBRARY": "1", "AIRFLOW_HOME": os.devnull}
logging.getLogger("airflow").setLevel(logging.WARNING)
sys.path.insert(0, str(Path(__file__).parents[1]))

project = "Elastic PyTorch on Airflow"
html_title = project
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

extensions = [
    "myst_parser",
    "docs._ext.from_code",
    "docs._ext.links_out",
    "docs._ext.site_index",
]
exclude_patterns = ["_ext"]
nitpicky = True
# The depth of the headings that a link may lead to, by the names that GitHub gives them.
myst_heading_anchors = 4
# Blocks of commands and logs have no language.
highlight_language = "text"
