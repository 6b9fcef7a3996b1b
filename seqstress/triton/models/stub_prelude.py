# Put in front of Triton's own triton_python_backend_utils.py, which every model stub imports before the
# model. The stub's embedded interpreter ignores PYTHONDONTWRITEBYTECODE and PYTHONPATH, so this is the place
# for both.
import sys

sys.dont_write_bytecode = True  # a person's model repository is served as it is, never written to
sys.path[:0] = STUB_PATH  # noqa: F821 - set by the line before this text: where another release's numpy lives

import numpy  # noqa: E402

if (
    int(numpy.__version__.split(".")[0]) >= 2
):  # the backend was built against numpy 1: every answer would be empty
    raise ImportError(
        f"numpy {numpy.__version__} in the model stub's environment: the Python backend needs numpy<2"
    )
