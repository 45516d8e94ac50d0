"""Python runs this at start-up in every process that has this folder on PYTHONPATH.

SGLang spawns its scheduler and detokenizer as fresh interpreters, so the import stubs must come
with the environment and not from the program that starts the server.
"""

import importlib

# By name, because a type checker that is not told of this folder finds no such package.
importlib.import_module("laps_testbed.import_stubs").install()
