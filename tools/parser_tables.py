"""Write the parser's tables from its grammar: `python tools/parser_tables.py`.

Lark takes 0.2 s to build its tables; a command of ours takes less than that in all. So the tables are built once, here,
and kept beside the grammar as JSON. A test fails when the two disagree.
"""

from tfdsl.language import tables

if __name__ == "__main__":
    tables.PATH.write_text(tables.build(), encoding="utf-8")
    print(f"wrote {tables.PATH.name}")
