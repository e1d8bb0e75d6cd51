"""The files of tests that do not depend on the instruction set, and why.

All tests run with the set that the machine takes by itself. Where another one is forced, `pytest --kernels` leaves out
the files that are listed here, and names them at its end; a file that is not listed runs with every set.

What may be listed: tests of text, of arguments, of how files are read and written, of sums worked out in Python, and of
native code that is compiled once. What kernels give is only what they are tried on, and other files prove it. Files
that call kernels by name may not be listed (test_kernels.py).
"""

ONCE = {
    "what the command line takes, prints and refuses": (
        "test_cli", "test_cli_choices", "test_cli_files", "test_cli_formats", "test_cli_prune",
        "test_cli_zeros", "test_demo", "test_report",
    ),
    "how model files are named, laid out, written, replaced and refused": (
        "test_model_checkpoint", "test_model_copies", "test_model_dtypes", "test_model_foreign", "test_model_hostile",
        "test_model_metadata", "test_model_replacing", "test_model_scale", "test_model_shards", "test_model_ties",
        "test_model_tools", "test_model_writing",
    ),
    "files of other tools": (
        "test_chunks", "test_formats", "test_formats_compressed_tensors", "test_formats_contradictions",
        "test_formats_folders", "test_formats_hostile", "test_formats_networks", "test_formats_peers",
        "test_formats_pickles", "test_formats_refusals", "test_formats_table",
    ),
    "formulas of sizes, times and operations, and plans made from them": (
        "test_breakeven", "test_formulas", "test_machine", "test_operations", "test_plan", "test_structured_zeros",
    ),
    "plain Python, without our native code or beside code that is compiled once": (
        "test_entropy", "test_prune", "test_prune_memory", "test_prune_structures", "test_spec",
    ),
    "documents, imports and what is public": ("test_package", "test_readme"),
}  # fmt: skip
