"""Take progress bars out of an executed notebook, and the widgets that only they need.

A bar of tqdm is eleven widgets, and nbconvert stores all that a run has made: half of a notebook's
500 kB otherwise. Widgets that explore something stay.
"""

import json
import re
import sys

import nbformat

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"


def is_bar(output):
    return VIEW in output.get("data", {}) and re.search(r"\d+%\||\d+it ", output["data"].get("text/plain", ""))


notebook = nbformat.read(sys.argv[1], 4)
waiting = []
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs = [output for output in cell.outputs if not is_bar(output)]
        waiting += [output["data"][VIEW]["model_id"] for output in cell.outputs if VIEW in output.get("data", {})]
models = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
needed = {}
while waiting:
    name = waiting.pop()
    if name in models and name not in needed:
        needed[name] = models[name]
        waiting += re.findall(r"IPY_MODEL_(\w+)", json.dumps(models[name]))
if models:
    notebook.metadata["widgets"][STATE]["state"] = needed
nbformat.write(notebook, sys.argv[1])
