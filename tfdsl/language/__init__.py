"""Text to syntax tree: the grammar, the parser, the printer and the diagnostics."""
