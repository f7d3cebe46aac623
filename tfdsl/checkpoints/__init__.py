"""Published checkpoints, as folders of a `config.json` and safetensors: read, imported and written through mappings.

`names`, `fields` and `layout` say what a mapping means; `folder` reads what is on the disk; `family` finds the mapping
for either side; `importing`, `reading` and `exporting` are the three things that one does with it.
"""
