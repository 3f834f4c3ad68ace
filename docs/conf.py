"""The documentation site: `make docs` builds it into build/site. It loads nothing from elsewhere: it works offline."""

project = "finesight"
copyright = "2026 The finesight authors"  # noqa: A001  the name that Sphinx reads
extensions = ["myst_parser"]
exclude_patterns = ["conf.py"]

html_theme = "furo"
html_title = "finesight"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
smartquotes = False  # a flag such as --safe keeps its two hyphens

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # a link to page.md#heading works, and a dead one is an error
nitpicky = True
