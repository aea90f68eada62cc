"""What still stands against the rules of test_shape.py. Lists here may only get shorter: a test
fails when one of them names what is no more.
"""

from __future__ import annotations

# Files that import each other.
CIRCLES: tuple[str, ...] = ()

# Packages that import each other.
PAIRS: tuple[str, ...] = ()

# Imports inside functions that bring nothing heavy. A trial's own modules are imported after its
# memory is limited, and while what libraries print is kept out of its events.
INSIDE: tuple[str, ...] = ("core.measure.worker -> core.measure.trial.run_trial",)

# Files with a table of metrics beside the metrics' own. The roofline computes five metrics at once
# and returns them by name.
KEYED = ("core/predict/roofline.py",)

# Files of production code of more than 250 lines.
LONG: tuple[str, ...] = (
    "app/figures/charts.py",
    "app/jobs/supervisor.py",
    "app/parts/forms.py",
    "app/reports/content.py",
    "app/views/live.py",
    "app/views/tradeoffs.py",
    "app/views/trials.py",
    "core/catalogue/zoo/train_pycode.py",
    "core/data/passages.py",
    "core/data/split.py",
    "core/measure/serve.py",
    "core/model.py",
    "kernels/attention/kv.cpp",
    "kernels/bench/linear.py",
    "kernels/linear_dense/cpu.cpp",
    "kernels/linear_lowbit/codes.py",
    "kernels/linear_lowbit/gpu/kernels.py",
    "kernels/linear_lowbit/vectors.h",
    "kernels/linear_w8a8/cpu.cpp",
    "kernels/registry.py",
    "store/copies/backup.py",
)

# Files of tests of more than 350 lines.
LONG_TESTS: tuple[str, ...] = (
    "tests/app/cli/test_serving.py",
    "tests/app/pages/test_pages.py",
    "tests/core/artefacts/test_gguf_read.py",
    "tests/core/data/test_dataset.py",
    "tests/core/files/test_damaged_folders.py",
    "tests/core/measure/test_serve.py",
    "tests/core/measure/test_worker.py",
    "tests/core/techniques/quantize/test_data_free.py",
    "tests/evidence/files/damage_files.py",
    "tests/evidence/files/fuzz_readers.py",
    "tests/store/test_backup.py",
    "tests/store/test_recovery.py",
)

# Folders of more than 16 files of code.
FULL: tuple[str, ...] = ()

# Names that two or more public classes have: a technique and the codes it makes, the products of
# kernels, parts and stacks of files and of the engine's matrices.
SHARED = (
    "Fp8",
    "Gemv",
    "Product",
    "Speculative",
    "Stack",
    "W8A8",
)
