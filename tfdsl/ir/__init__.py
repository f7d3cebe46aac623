"""The graph: symbolic sizes, the table of ops, the NetworkX graph, elaboration of a tree into it, its checks, its text."""
