"""Targets, one folder each; a folder is imported only when its target is asked for."""
