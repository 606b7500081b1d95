"""Build of the Cython extensions; everything else about the package is in pyproject.toml."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent


def openmp_flags() -> list[str]:
    """Return the compiler's OpenMP flag when a small program builds with it, else nothing.

    ``EFFML_NO_OPENMP=1`` builds without; results are the same, loops then run on one thread.
    """
    if os.environ.get("EFFML_NO_OPENMP"):
        return []
    compiler = os.environ.get("CC", "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
        command = [*compiler, "-fopenmp", str(source), "-o", str(Path(folder, "probe"))]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return []
    return ["-fopenmp"]


def extensions() -> list[Extension]:
    openmp = openmp_flags()
    # No flag here is tied to the building machine; faster instruction sets are chosen at run time (see *.h).
    # Contraction is off so that float32 sums are the same in numpy, in these loops and in the exported C.
    unix = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    compile_args = ["/O2", "/fp:precise"] if sys.platform == "win32" else unix
    return [
        Extension(
            f"effml._cext.{path.stem}",
            [str(path.relative_to(HERE))],
            include_dirs=[np.get_include(), "effml/_cext"],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=compile_args + openmp,
            extra_link_args=openmp,
            depends=[str(header.relative_to(HERE)) for header in (HERE / "effml/_cext").glob("*.h")],
        )
        for path in sorted((HERE / "effml/_cext").glob("*.pyx"))
    ]


directives = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}

jobs = os.cpu_count() or 1
setup(
    # Where processes are spawned, cythonize's would import this file anew.
    ext_modules=cythonize(
        extensions(), compiler_directives=directives, nthreads=jobs if sys.platform.startswith("linux") else 0
    ),
    options={"build_ext": {"parallel": jobs}},
)
