"""Compact files of models whose weights take few values: every tensor in the cheapest of a few exact forms.

| form | stored | decoded |
|---|---|---|
| raw | the numbers as they are | the same |
| levels | a table of distinct values, for the tensor or each row (output channel); codes of few bits | table[code] |
| affine | one scale, for the tensor or each row, and integers of few bits | integer * scale, in float32 |

Each form comes in a second version for sparse tensors: one bit an entry says whether it is zero, and only the others
are stored. A table symmetric about zero keeps its positive half. Decoding gives back every number exactly
(-0.0 comes back as 0.0).

A file is: the magic "EFDM", a format version, a flag byte, the length of the header, the header (JSON compressed by
zlib: names, shapes, forms), the payload (compressed by zlib where the flag says so). Byte order is little-endian.
"""

import json
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

__all__ = ["Stored", "file_bytes", "load_compact", "save_compact", "stored_tensors"]

_MAGIC, _VERSION = b"EFDM", 1
_MOST_LEVELS = 256
_LARGEST_INTEGERS = (1, 3, 7, 15, 31, 63, 127)


@dataclass
class Stored:
    """One tensor in one form.

    Attributes
    ----------
    form : {"raw", "levels", "affine"}
    shape : tuple
    table : array
        The numbers themselves, the table (rows, levels), or the scales (rows, 1).
    codes : uint8 array or None
        One an entry, or one a nonzero entry where there is a mask.
    bits : int
        Of a code.
    zero : int
        What is subtracted from an affine code.
    levels : int
        Entries of a row of the whole table; half of them are in `table` if `symmetric`.
    mask : bool array or None
        Which entries are not zero.
    """

    form: str
    shape: tuple
    table: np.ndarray
    codes: np.ndarray | None = None
    bits: int = 0
    zero: int = 0
    levels: int = 0
    symmetric: bool = False
    mask: np.ndarray | None = field(default=None, repr=False)

    @property
    def size_bits(self):
        """Bits of the payload: numbers, codes, mask."""
        coded = 0 if self.codes is None else self.codes.size * self.bits
        return 8 * self.table.nbytes + coded + (0 if self.mask is None else self.mask.size)

    def decode(self):
        """The tensor as an array."""
        if self.form == "raw" and self.mask is None:
            return self.table.reshape(self.shape)
        n = int(np.prod(self.shape))
        values = self.table if self.form == "raw" else self._decoded(n)
        if self.mask is not None:
            dense = np.zeros(n, np.float32)
            dense[self.mask] = values
            values = dense
        return values.reshape(self.shape)

    def _decoded(self, n):
        """The coded entries of n, as float32."""
        rows = np.arange(n) // max(1, n // len(self.table))
        rows = rows if self.mask is None else rows[self.mask]
        if self.form == "affine":
            return (self.codes.astype(np.int16) - self.zero).astype(np.float32) * self.table[rows, 0]
        return self._whole_table()[rows, self.codes]

    def _whole_table(self):
        if not self.symmetric:
            return self.table
        middle = np.zeros((len(self.table), self.levels % 2), np.float32)
        return np.hstack([-self.table[:, ::-1], middle, self.table])


def encode(array):
    """The cheapest exact form of an array, as `Stored`.

    Examples
    --------
    >>> import numpy as np
    >>> stored = encode(np.array([[0.5, -0.5, 0.5, 0.5], [0.25, 0.25, -0.25, 0.25]], np.float32))
    >>> stored.form, stored.bits, stored.size_bits
    ('levels', 1, 72)
    """
    array = np.asarray(array)
    raw = Stored("raw", array.shape, array.reshape(-1))
    if array.dtype != np.float32 or array.size < 2 or not np.isfinite(array).all():
        return raw
    flat = array.reshape(-1)
    shapes = {1, len(array)} if array.ndim > 1 else {1}
    found = [raw]
    for mask in (None, flat != 0):
        if mask is not None and (mask.all() or not mask.any()):
            continue
        if mask is not None:
            found.append(Stored("raw", array.shape, flat[mask], mask=mask))
        for n_rows in sorted(shapes):
            rows = np.arange(flat.size) // (flat.size // n_rows)
            values, rows = (flat, rows) if mask is None else (flat[mask], rows[mask])
            for make in (_levels, _affine):
                form = make(values, rows, n_rows)
                if form is not None:
                    form.shape, form.mask = array.shape, mask
                    found.append(form)
    return min(found, key=lambda form: form.size_bits)


def _levels(values, rows, n_rows):
    tables = [np.unique(values[rows == row]) for row in range(n_rows)]
    n_levels = max(map(len, tables))
    if n_levels > _MOST_LEVELS:
        return None
    table = np.zeros((n_rows, n_levels), np.float32)
    codes = np.empty(len(values), np.uint8)
    for row, own in enumerate(tables):
        if own.size:
            table[row] = np.concatenate([own, np.full(n_levels - len(own), own[-1])])
            codes[rows == row] = np.searchsorted(own, values[rows == row])
    stored = Stored("levels", (), table, codes, (n_levels - 1).bit_length(), levels=n_levels)
    if n_levels > 1 and np.array_equal(table, -table[:, ::-1]):
        stored.symmetric, stored.table = True, np.ascontiguousarray(table[:, -(n_levels // 2) :])
    return stored


def _affine(values, rows, n_rows):
    largest = np.zeros(n_rows, np.float32)
    np.maximum.at(largest, rows, np.abs(values))
    for top in _LARGEST_INTEGERS:
        scale = _row_scales(values, rows, largest, top)
        if scale is not None:
            codes = (np.rint(values / scale[rows]) + top).astype(np.uint8)
            return Stored("affine", (), scale.reshape(-1, 1), codes, (2 * top).bit_length(), zero=top)
    return None


def _row_scales(values, rows, largest, top):
    """A scale for each row with which its values are integers up to `top`, exactly in float32; None if one has none."""
    near = np.where(largest > 0, largest / np.float32(top), np.float32(1))
    found = np.full(len(largest), np.nan, np.float32)
    for scale in (near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))):
        integers = np.rint(values / scale[rows])
        wrong = (np.abs(integers) > top) | (integers.astype(np.float32) * scale[rows] != values)
        right = np.bincount(rows, weights=wrong, minlength=len(largest)) == 0
        found = np.where(np.isnan(found) & right, scale, found)
    return None if np.isnan(found).any() else found


def stored_tensors(model):
    """Every tensor of a model's state_dict in its cheapest form, by name; a shared tensor comes once."""
    stored, seen = {}, set()
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if key not in seen:
            seen.add(key)
            stored[name] = encode(tensor.detach().cpu().numpy())
    return stored


# -- files ------------------------------------------------------------------------------------------------------------


def save_compact(model, path):
    """Write a model's numbers to a file, each tensor in its cheapest exact form.

    Parameters
    ----------
    model : nn.Module
        Finalized: parametrized modules are refused.
    path : path-like
        Replaced as a whole if it exists.

    Returns
    -------
    int
        Bytes of the file.

    Examples
    --------
    >>> import tempfile, torch
    >>> from effml.deep import load_compact, save_compact
    >>> model = torch.nn.Linear(100, 10)
    >>> with torch.no_grad():
    ...     _ = model.weight.sign_()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save_compact(model, folder + "/model.efdm")
    ...     same = load_compact(folder + "/model.efdm", torch.nn.Linear(100, 10))
    >>> size < 400, torch.equal(same.weight, model.weight)
    (True, True)
    """
    if any(hasattr(module, "parametrizations") for module in model.modules()):
        raise ValueError("the model has parametrizations; save what Recipe.finalize returns")
    entries, payload = [], []
    for name, stored in stored_tensors(model).items():
        parts = [stored.table.tobytes()]
        if stored.codes is not None:
            parts.append(_pack(stored.codes, stored.bits))
        if stored.mask is not None:
            parts.append(np.packbits(stored.mask).tobytes())
        payload += parts
        entries.append(_entry(name, stored))
    header = zlib.compress(json.dumps(entries, separators=(",", ":")).encode(), 9)
    body = b"".join(payload)
    small = zlib.compress(body, 9)
    compressed = len(small) < len(body)
    content = _MAGIC + struct.pack("<BBI", _VERSION, compressed, len(header)) + header + (small if compressed else body)
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
    return len(content)


def _entry(name, stored):
    n_codes = -1 if stored.codes is None else stored.codes.size
    table = [stored.table.dtype.str, *stored.table.shape]
    flags = [stored.bits, stored.zero, stored.levels, int(stored.symmetric), int(stored.mask is not None)]
    return [name, stored.form, list(stored.shape), table, n_codes, *flags]


def _pack(codes, bits):
    return np.packbits((codes[:, None] >> np.arange(bits, dtype=np.uint8)) & 1, bitorder="little").tobytes()


def _unpack(content, n_codes, bits):
    flat = np.unpackbits(np.frombuffer(content, np.uint8), count=n_codes * bits, bitorder="little")
    return (flat.reshape(n_codes, bits) << np.arange(bits, dtype=np.uint8)).sum(1).astype(np.uint8)


def load_compact(path, model):
    """Read what `save_compact` wrote into a model of the same architecture, in place; returns the model.

    Raises
    ------
    ValueError
        If the file is none of ours, or its names and shapes are not the model's.
    """
    content = Path(path).read_bytes()
    if content[:4] != _MAGIC or content[4] != _VERSION:
        raise ValueError(f"{path} is not a compact model file of version {_VERSION}")
    compressed, n_header = struct.unpack("<BI", content[5:10])
    entries = json.loads(zlib.decompress(content[10 : 10 + n_header]))
    body = content[10 + n_header :]
    arrays = dict(_read(entries, zlib.decompress(body) if compressed else body))
    own = model.state_dict()
    for name, tensor in own.items():  # names that share a tensor are in the file once
        if name not in arrays:
            twin = next(
                (other for other in arrays if other in own and own[other].data_ptr() == tensor.data_ptr()), None
            )
            if twin is None:
                raise ValueError(f"{path} has no {name!r}")
            arrays[name] = arrays[twin]
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return model


def _read(entries, body):
    position = 0

    def take(n_bytes):
        nonlocal position
        position += n_bytes
        return body[position - n_bytes : position]

    for name, form, shape, (dtype, *table_shape), n_codes, bits, zero, levels, symmetric, masked in entries:
        table = np.frombuffer(take(int(np.prod(table_shape)) * np.dtype(dtype).itemsize), dtype).reshape(table_shape)
        codes = None if n_codes < 0 else _unpack(take(-(-n_codes * bits // 8)), n_codes, bits)
        n = int(np.prod(shape))
        mask = np.unpackbits(np.frombuffer(take(-(-n // 8)), np.uint8), count=n).astype(bool) if masked else None
        stored = Stored(form, tuple(shape), table, codes, bits, zero, levels, bool(symmetric), mask)
        yield name, stored.decode()


def file_bytes(model):
    """Bytes of the compact file of a model, by writing it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.efdm"
        save_compact(model, path)
        return path.stat().st_size
