"""The one public door: what it offers, what it costs, and what it says about itself."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import secateur as sc
from secateur import _errors, testing
from secateur._errors import SecateurError, UnknownName

HEAVY = ("torchvision", "timm", "sklearn", "accelerate", "plotly", "pandas", "typer", "jinja2", "PIL", "onnx")


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_what_the_module_offers():
    offered = {k for k, v in vars(sc).items() if not k.startswith("_") and not isinstance(v, ModuleType)}
    assert offered == set(sc.__all__)
    assert sc.__all__ == sorted(sc.__all__)


def test_everything_has_a_docstring():
    for name in sc.__all__:
        text = inspect.getdoc(getattr(sc, name))
        assert text, name
        assert not text.startswith(f"{name}("), f"{name} has only the docstring that dataclasses write"


def test_the_door_of_the_tests():
    assert callable(testing.check_method)
    assert "residual" in testing.toys()


def test_the_version_is_the_package_s():
    assert sc.__version__ == importlib.metadata.version("secateur")


def test_importing_it_is_light():
    program = f"import secateur, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert in_a_fresh_process(program).strip() == "[]"


def test_importing_the_command_line_is_light_too():
    program = f"import secateur.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert set(re.findall(r"'(\w+)'", in_a_fresh_process(program))) <= {"typer"}


def test_the_report_imports_no_torch():
    """Not even on the way: the package's own door is stepped around, since that one is open to everything."""
    folder = str(Path(inspect.getfile(sc)).parent)
    program = (
        "import sys, types; door = types.ModuleType('secateur'); "
        f"door.__path__ = [{folder!r}]; sys.modules['secateur'] = door; "
        "import secateur.report; "
        "assert callable(secateur.report.write_report); "
        "print([m for m in ('torch', 'torchvision', 'timm', 'numpy', 'plotly') if m in sys.modules])"
    )
    assert in_a_fresh_process(program).strip() == "[]"


def drawn_tree() -> dict[str, str]:
    """Class name to the name of its parent, as the docstring of the errors draws it."""
    parents, path = {}, []
    for line in (_errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)(\s|$)", line)
        if not found:
            continue
        depth = len(found.group(1)) // 4
        path[depth:] = [found.group(2)]
        parents[found.group(2)] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_error_tree_is_drawn_as_it_is():
    real = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(_errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception)
    }
    assert drawn_tree() == real
    assert len(real) >= 11


def test_every_error_is_caught_by_the_root():
    for name in drawn_tree():
        assert issubclass(getattr(_errors, name), SecateurError)
    assert sc.SecateurError is SecateurError


def test_every_error_says_what_it_is_for():
    for name in drawn_tree():
        assert inspect.getdoc(getattr(_errors, name))


@pytest.mark.parametrize("known", [[], ["alpha", "beta"]])
def test_unknown_names(known: list[str]):
    message = str(UnknownName("thing", "alpah", known, hint="or another"))
    assert message.startswith("unknown thing 'alpah'\n")
    assert message.endswith("\nor another")
    assert ("did you mean 'alpha'?" in message) == bool(known)
