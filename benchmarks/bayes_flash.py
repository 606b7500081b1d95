"""Flash bytes and host latency of the exported letter classifiers, in every format and layout.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_flash.py

Official split of letter (16,000 / 4,000), uint8 rows in, Laplace parameters rounded after training. Flash is what the
whole function takes: code, tables, bin edges, structure; measured with ``gcc -Os`` by `size`, beside effml's own
estimate, and on Cortex-M3 where arm-none-eabi-gcc is installed. Latency is the median over batches on the host,
compiled with -O2. Every row must be predicted as Python predicts it, or the script fails.
"""

import shutil
import time

import numpy as np
from rich.console import Console
from rich.table import Table

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.datasets import load_dataset

CORTEX_M3 = ["arm-none-eabi-gcc", "-mcpu=cortex-m3", "-mthumb"]


def latency(compiled, rows, repeats=15):
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        compiled.run(rows, "label")
        times.append((time.perf_counter() - begin) / len(rows))
    return 1e9 * float(np.median(times))


def main():
    data = load_dataset("letter")
    X, y, X_test, y_test = data.X_train, data.y_train, data.X_test, data.y_test
    table = Table(title="letter, official split, uint8 rows")
    for column in ("model", "format", "layout", "test error %", "estimated", "x86-64", "Cortex-M3", "RAM", "ns/row"):
        table.add_column(column, justify="left" if column in ("model", "format", "layout") else "right")
    has_arm = shutil.which(CORTEX_M3[0]) is not None
    for cls in (NaiveBayesClassifier, TANClassifier):
        formats = [("float32", {}, ["auto"])]
        for bits in (2, 4, 8):
            layouts = ["byte"] if bits == 8 else ["byte", "dense", "swar"]
            formats.append((f"contrast {bits}", {"n_bits": bits}, layouts))
            formats.append((f"log_prob {bits}", {"n_bits": bits, "integer_bits": "auto"}, layouts))
        for label, options, layouts in formats:
            model = cls(**options).fit(X, y)
            error = 100 * np.mean(model.predict(X_test) != y_test)
            for layout in layouts:
                compiled = effml.compile_c(model, input_dtype="uint8", layout=layout)
                agreement = compiled.agreement(X_test)
                if agreement.n_equal != agreement.n_rows:
                    raise SystemExit(f"{cls.__name__} {label} {layout}: C and Python differ")
                price = effml.footprint(model, input_dtype="uint8", layout=layout)
                arm = compiled.compiled.section_sizes(compiler=CORTEX_M3)["text"] if has_arm else None
                nanoseconds = latency(compiled.compiled, compiled.compiled.program.encode(X_test))
                table.add_row(
                    cls.__name__.replace("Classifier", ""),
                    label,
                    layout,
                    f"{error:.2f}",
                    str(price.flash_bytes),
                    str(compiled.flash_bytes),
                    "-" if arm is None else str(arm),
                    str(price.ram_bytes),
                    f"{nanoseconds:.0f}",
                )
        table.add_section()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
