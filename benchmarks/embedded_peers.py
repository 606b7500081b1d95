"""What other exporters make of scikit-learn's models, as C that `embedded.py` measures on an emulated Cortex-M3.

    python benchmarks/embedded_peers.py EXPORTER MODEL.joblib FOLDER

runs in the interpreter that has the exporters and writes the C into FOLDER, with a file that wraps it as
``int32_t label(const ROW *row)``; prints the folders that it includes from. Forests go through `forest_peers.py`.
"""

import json
import sys
from pathlib import Path

import forest_peers

WRAPPED = '#include <stdint.h>\n#include "model.h"\nint32_t label(const ROW *row);\n'


def emlearn_floats(model, folder):
    """Gaussian naive Bayes and networks: float rows in, tables in fixed point or float."""
    import emlearn

    method = "loadable" if type(model).__name__ == "GaussianNB" else "inline"
    (folder / "model.h").write_text(emlearn.convert(model, method=method).save(name="model"))
    call = f"return model_predict(input, {model.n_features_in_});"
    copy = (
        f"float input[{model.n_features_in_}];\n    for (int j = 0; j < {model.n_features_in_}; j++) input[j] = row[j];"
    )
    (folder / "label.c").write_text(
        f"#define EML_MAX_CLASSES {len(model.classes_)}\n"
        + WRAPPED
        + f"int32_t label(const ROW *row)\n{{\n    {copy}\n    {call}\n}}\n"
    )
    return [emlearn.includedir]


def m2cgen(model, folder):
    """Everything that m2cgen knows; the score of two classes is one number, its sign decides."""
    import m2cgen

    if len(model.classes_) > 2 or hasattr(model, "estimators_") or hasattr(model, "tree_"):
        return forest_peers.m2cgen(model, folder)
    (folder / "model.c").write_text(m2cgen.export_to_c(model))
    n = model.n_features_in_
    (folder / "label.c").write_text(
        "#include <stdint.h>\ndouble score(double *input);\nint32_t label(const ROW *row);\n"
        f"int32_t label(const ROW *row)\n{{\n    double input[{n}];\n"
        f"    for (int j = 0; j < {n}; j++) input[j] = row[j];\n    return score(input) > 0;\n}}\n"
    )
    return []


def micromlgen(model, folder):
    import micromlgen

    (folder / "model.h").write_text(micromlgen.port(model, classname="Model"))
    (folder / "cstdarg").write_text("#include <stdarg.h>\n#include <stdint.h>\n")  # no C++ library on the device
    (folder / "label.cpp").write_text(
        '#include "model.h"\nstatic Eloquent::ML::Port::Model model;\n'
        'extern "C" int32_t label(const ROW *row) { return model.predict(const_cast<ROW *>(row)); }\n'
    )
    return []


# name: (function, its arguments, type of the row)
EXPORTERS = {
    "emlearn inline int16, hard": (forest_peers.emlearn, ("inline", "int16_t", 0), "int16_t"),
    "emlearn inline int16, soft": (forest_peers.emlearn, ("inline", "int16_t", 8), "int16_t"),
    "emlearn loadable int16, hard": (forest_peers.emlearn, ("loadable", "int16_t", 0), "int16_t"),
    "emlearn inline float, hard": (forest_peers.emlearn, ("inline", "float", 0), "float"),
    "emlearn inline float, soft": (forest_peers.emlearn, ("inline", "float", 8), "float"),
    "emlearn": (emlearn_floats, (), "float"),
    "m2cgen": (m2cgen, (), "float"),
    "micromlgen": (micromlgen, (), "float"),
    "TL2cgen": (forest_peers.tl2cgen, (0,), "float"),
}


def main():
    import joblib

    name, model_path, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    function, arguments, _ = EXPORTERS[name]
    print(json.dumps({"include": function(joblib.load(model_path), folder, *arguments)}))


if __name__ == "__main__":
    main()
