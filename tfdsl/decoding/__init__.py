"""Decoding with a built artifact: what a folder holds, sessions that remember, the loop that generates, tokenizers."""
