"""What a drill found, written down: a page, JUnit XML, the terminal, and Markdown. Pure: a ``Run`` in, text out."""
