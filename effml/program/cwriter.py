"""Where steps print their C: constants are pooled by content, buffers get storage by liveness, text is escaped.

One :class:`CWriter` makes one ``.c`` file. Every function of that file (predict, predict_proba, ...) is a pruned copy
of the same Program, so equal tables are emitted once however many functions read them.
"""

import re

import numpy as np

from effml.program.buffers import DTYPES

__all__ = ["C_TYPES", "CWriter", "block", "c_comment", "c_string", "check_c_name", "indent", "key_of_float32", "turns"]

C_TYPES = {name: "float" if name == "f32" else f"{dtype}_t" for name, dtype in DTYPES.items()}

_KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "_Bool",
        "_Complex",
        "_Imaginary",
        "alignas",
        "alignof",
        "and",
        "and_eq",
        "asm",
        "bitand",
        "bitor",
        "bool",
        "catch",
        "class",
        "compl",
        "concept",
        "const_cast",
        "constexpr",
        "decltype",
        "delete",
        "dynamic_cast",
        "explicit",
        "export",
        "false",
        "friend",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "not",
        "not_eq",
        "nullptr",
        "operator",
        "or",
        "or_eq",
        "private",
        "protected",
        "public",
        "reinterpret_cast",
        "requires",
        "static_assert",
        "static_cast",
        "template",
        "this",
        "thread_local",
        "throw",
        "true",
        "try",
        "typeid",
        "typename",
        "using",
        "virtual",
        "wchar_t",
        "xor",
        "xor_eq",
        "main",
    ]
)


_HEADERS = frozenset(
    [
        "assert",
        "complex",
        "ctype",
        "errno",
        "fenv",
        "float",
        "inttypes",
        "iso646",
        "limits",
        "locale",
        "math",
        "setjmp",
        "signal",
        "stdalign",
        "stdarg",
        "stdatomic",
        "stdbool",
        "stddef",
        "stdint",
        "stdio",
        "stdlib",
        "stdnoreturn",
        "string",
        "tgmath",
        "threads",
        "time",
        "uchar",
        "wchar",
        "wctype",
    ]
)


def check_c_name(name: str) -> str:
    """Return `name` when it can prefix C and C++ symbols, else raise ValueError."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name, flags=re.ASCII):
        raise ValueError(
            f"name={name!r} is no C identifier: use a letter followed by letters, digits or underscores, 63 at most"
        )
    if name in _HEADERS:
        raise ValueError(f"name={name!r} would hide the standard header <{name}.h>; choose another")
    if name in _KEYWORDS or "__" in name:
        raise ValueError(f"name={name!r} is reserved in C or C++; choose another")
    return name


def c_comment(text: object, limit: int = 200) -> str:
    """Return `text` as one line that is safe inside a C comment, whatever it holds."""
    line = "".join(ch if ch.isprintable() and ord(ch) < 127 else f"\\u{ord(ch):04x}" for ch in str(text))
    # neither the end nor a nested start of a comment; a trigraph or a trailing backslash would splice lines
    line = line.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    line = line[:limit] + ("..." if len(line) > limit else "")
    return line + " " if line.endswith(("\\", "*", "/", "?")) else line


def c_string(text: object) -> str:
    """Return `text` as a C string literal; everything but plain ASCII becomes UTF-8 octal escapes."""
    out = []
    for byte in str(text).encode("utf-8", "surrogatepass"):
        ch = chr(byte)
        out.append(ch if 32 <= byte < 127 and ch not in '"\\?' else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def key_of_float32(values) -> np.ndarray:
    """Return int32 keys in the order of the float32 values: ``x <= t`` iff ``key(x) <= key(t)``; both zeros give 0.

    NaN has keys beyond those of the infinities and must be tested before any comparison.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    return np.where(bits < 0, np.int32(-(2**31)) - bits, bits).astype(np.int32)


class CWriter:
    """Collects the constants and helpers that the steps of one file ask for."""

    def __init__(self, name: str):
        self.name = check_c_name(name)
        self._pool: dict[tuple, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.helpers: dict[str, str] = {}
        self.uses_float = False

    def constant(self, hint: str, array, dtype: str | None = None) -> str:
        """Add a constant array once and return its C name; integers take the narrowest type unless `dtype` is given."""
        array = np.asarray(array).ravel()
        if dtype is not None:
            array = array.astype(DTYPES[dtype])
        elif array.dtype.kind in "iub":
            array = narrowest(array)
        else:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.tobytes())
        if key not in self._pool:
            name = f"{self.name}_{hint}"
            while name in self.constants:
                name += "_"
            self._pool[key] = name
            self.constants[name] = array
        return self._pool[key]

    def type_of(self, constant: str) -> str:
        """Return the C type of the elements of a constant."""
        return _ctype(self.constants[constant])

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constant arrays: exactly what the compiler puts into read-only memory for them."""
        return sum(array.nbytes for array in self.constants.values())

    def helper(self, name: str, source: str) -> str:
        """Add a static function once and return its C name, which replaces ``{name}`` in `source`."""
        full = f"{self.name}_{name}"
        self.helpers[full] = source.replace("{name}", full)
        return full

    def render_constants(self) -> str:
        """Return the C definitions of all constants."""
        return "\n".join(_definition(name, array, self.space, self.attribute) for name, array in self.constants.items())

    @property
    def attribute(self) -> str:
        """Macro after the name of every constant: users map it to a section attribute."""
        return f"{self.name.upper()}_CONST_ATTR"

    @property
    def space(self) -> str:
        """Macro before the type of every constant, and of what a pointer to one points to: an address space."""
        return f"{self.name.upper()}_CONST_SPACE"


def narrowest(array: np.ndarray) -> np.ndarray:
    """Return an integer array in the narrowest of u8, i8, u16, i16, i32, u32 that holds it."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return array.astype(dtype)
    raise ValueError(f"constants from {low} to {high} do not fit 32 bits")


def turns(largest: int) -> str:
    """Return the comment behind the head of a loop whose end depends on data: how often it turns at most.

    :mod:`effml.program.targets.worst_case` reads it; of ``for (i = 0; i < 16u; i++)`` it knows the number.
    """
    return f" /* at most {int(largest)} turns */"


def indent(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def block(lines: list[str]) -> str:
    """Return lines as one braced C block."""
    return "\n".join(["{", *indent(lines), "}"])


def _ctype(array: np.ndarray) -> str:
    return C_TYPES[f"{array.dtype.kind}{8 * array.dtype.itemsize}"]


def _literal(value, dtype: np.dtype) -> str:
    if dtype.kind == "f":
        if not np.isfinite(value):
            raise ValueError(f"constant {value!r} is not finite and cannot be written as C")
        text = f"{float(value):.9g}"
        return text + ("f" if any(ch in text for ch in ".e") else ".0f")
    if dtype.itemsize == 4 and dtype.kind == "u":
        return f"{int(value)}u"
    if dtype.itemsize == 4 and int(value) == -(2**31):
        return "(-2147483647 - 1)"
    return str(int(value))


def _definition(name: str, array: np.ndarray, space: str, attribute: str, width: int = 116) -> str:
    ctype = _ctype(array)
    lines, line = [], "   "
    for value in array:
        cell = _literal(value, array.dtype)
        if len(line) + len(cell) + 2 > width:
            lines.append(line)
            line = "   "
        line += f" {cell},"
    body = "\n".join([*lines, line.rstrip(",")])
    return f"static const {space} {ctype} {name}[{len(array)}] {attribute} = {{\n{body}\n}};"
