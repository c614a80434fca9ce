# The module `strandline` of a program that strandline runs: its own or an installed one comes first. Runs on every
# CPython from 2.7 on.
from _strandline import census, mark, trim


def _find():
    import sys

    if sys.version_info[0] == 2:
        import imp

        try:
            # With a path it doesn't find this very module.
            found = imp.find_module("strandline", sys.path)
        except ImportError:
            return
        imp.load_module("strandline", *found)
        return
    for finder in sys.meta_path:
        spec = None
        if getattr(finder, "__name__", "") != "BuiltinImporter" and hasattr(finder, "find_spec"):
            spec = finder.find_spec("strandline", None)
        if spec is not None and spec.loader is not None:
            from importlib.util import module_from_spec

            module = module_from_spec(spec)
            sys.modules["strandline"] = module
            spec.loader.exec_module(module)
            return


_find()
