"""A `Report` as files: markdown, LaTeX, HTML and charts. Writers print what they are given and compute nothing."""
