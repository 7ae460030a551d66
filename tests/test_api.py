"""The public names, pinned: what users import does not change by accident."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version

import bc_attrvals


def test_all_names_resolve_and_are_sorted() -> None:
    assert bc_attrvals.__all__ == sorted(bc_attrvals.__all__)
    assert all(hasattr(bc_attrvals, name) for name in bc_attrvals.__all__)


def test_every_public_name_has_a_docstring() -> None:
    for name in bc_attrvals.__all__:
        public = getattr(bc_attrvals, name)
        if not inspect.isclass(public):
            continue
        assert public.__doc__, name
        for method, function in vars(public).items():
            if not method.startswith("_") and inspect.isfunction(function):
                assert function.__doc__, f"{name}.{method}"


def test_a_library_import_loads_nothing_of_the_command_line_and_no_converter() -> None:
    code = (
        "import sys; from bc_attrvals import *;"
        "print(*sorted({'click', 'rich', 'cattrs', 'sqlite3', 'uvloop', 'bc_attrvals.sandbox'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_names_for_type_checkers_are_those_imported_on_first_use() -> None:
    tree = ast.parse(inspect.getsource(bc_attrvals))
    static = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("bc_attrvals.")
        for alias in node.names
    }
    assert static == bc_attrvals._MODULE_OF_NAME
    assert sorted(static) == bc_attrvals.__all__
    assert set(bc_attrvals.__all__) <= set(dir(bc_attrvals))


def test_a_bare_import_loads_no_client_and_its_modules_are_still_reached() -> None:
    code = (
        "import sys, bc_attrvals; print('aiohttp' in sys.modules);"
        "print(bc_attrvals.errors.__name__, hasattr(bc_attrvals, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nbc_attrvals.errors False\n"


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert bc_attrvals.__version__ == version("bc_attrvals")
