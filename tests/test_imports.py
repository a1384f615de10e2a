"""The promises of captioner.imports."""

import importlib
import sys

import pytest

from captioner.imports import late


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """`asking` imports a function of `heavy`, `plain` does so inside a function; nothing of them stays behind."""
    (tmp_path / "heavy.py").write_text("def double(number, *, times=2):\n    return times * number\n")
    (tmp_path / "asking.py").write_text("from heavy import double\nimport math\n\ndef ask(n): return double(n)\n")
    (tmp_path / "plain.py").write_text("import heavy\n\ndef ask(n): return heavy.double(n)\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    for name in ("heavy", "asking", "plain"):
        sys.modules.pop(name, None)


def test_what_is_imported_late_comes_when_it_is_called(modules):
    """The importer runs without it; its function is the real one, arguments and all; and no finder stays."""
    finders = list(sys.meta_path)
    with late("asking", "heavy"):
        asking = importlib.import_module("asking")
    assert sys.meta_path == finders
    assert "heavy" not in sys.modules
    assert asking.math.pi > 3  # other imports are as ever
    assert (asking.ask(4), asking.double(4, times=3)) == (8, 12)
    assert "heavy" in sys.modules


def test_everybody_else_imports_as_ever(modules):
    """Another module, a plain import statement, and a module that is there already."""
    with late("asking", "heavy"):
        plain = importlib.import_module("plain")
        assert "heavy" in sys.modules
        asking = importlib.import_module("asking")
    assert asking.double is plain.heavy.double
    with late("no_such_module", "heavy"), pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("no_such_module")


def test_torchvisions_operators_work_all_the_same():
    """The one module whose import is late computes what it did: the mean of a patch of ones is one."""
    import torch
    from torchvision.ops import roi_align

    import captioner.encoder  # noqa: F401 - which imported it

    patches = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]]), output_size=2)
    assert torch.equal(patches, torch.ones(1, 1, 2, 2))
