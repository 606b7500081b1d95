"""Training steps of Bayesian network classifiers by gradient (see effml.bayes.training).

A batch is two parallel loops: over its samples (scores, loss, gradients of the scores) and over the features (each adds
the gradients of its own table rows, steps its logits and prepares them for the next batch). No two threads write the
same number and every sum has one order, so the model does not depend on the number of threads.

Each feature owns one or more candidate tables, *options*, of which a batch selects one. With one option a feature this
is training with a fixed structure.
"""

import numpy as np

from cython.parallel cimport prange, threadid
from libc.math cimport exp, log, pow, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t

ctypedef fused code_t:
    uint8_t
    uint16_t

cdef extern from "bayes_phases.h" nogil:
    const Py_ssize_t EFFML_LANES

    ctypedef struct effml_training:
        double generative
        double margin_weight
        double cross_entropy
        double margin
        double sharpness
        int format
        double scale
        double top
        double beta1
        double beta2
        double epsilon

    ctypedef struct effml_tables:
        void *logits
        void *probabilities
        void *scores
        void *first_moments
        void *second_moments
        Py_ssize_t n_class
        Py_ssize_t width

    ctypedef struct effml_phases:
        void (*prepare)(const effml_training *, const effml_tables *, Py_ssize_t, Py_ssize_t, Py_ssize_t, int, void *) noexcept nogil
        double (*sample)(const effml_training *, const effml_tables *, const int32_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, void *, void *) noexcept nogil
        double (*update)(const effml_training *, const effml_tables *, const void *, const int32_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, int, double, double, void *) noexcept nogil
        double (*option)(const effml_tables *, const void *, const int32_t *, Py_ssize_t) noexcept nogil

    effml_phases effml_choose_phases(int is_double, int portable)


LANES = EFFML_LANES


def training_arrays(n_rows, n_classes, dtype=np.float32):
    """Return the zeroed buffer of a `Trainer`, and its logits, probabilities, scores and moments (n_rows, n_classes).

    Whole registers are read, so LANES entries lie behind each.
    """
    size = n_rows * n_classes
    buffer = np.zeros((5, size + LANES), dtype=dtype)
    return buffer, [array[:size].reshape(n_rows, n_classes) for array in buffer]


cdef inline int32_t table_row(
    const code_t *codes, Py_ssize_t feature, int64_t parent, int64_t first, const int64_t *n_states
) noexcept nogil:
    """Return the number of the table row that a sample reads, or -1 where a code is missing or there is no table."""
    cdef int64_t code = codes[feature], other
    if code >= n_states[feature] or parent < -1:
        return -1
    if parent < 0:
        return <int32_t>(first + code)
    other = codes[parent]
    if other >= n_states[parent]:
        return -1
    return <int32_t>(first + code * n_states[parent] + other)


cdef class Trainer:
    """The arrays of one training run and its loops; everything is decided by the caller.

    Parameters
    ----------
    arrays : float32 or float64 array (5, n_rows * n_classes + LANES)
        Logits, probabilities, scores, first and second moments, as `training_arrays` gives them; scores of tables that
        are never trained (``trained`` 0) are set by the caller.
    n_classes : int
    n_states : int64 array (n_features,)
    option_start : int64 array (n_features + 2,)
        Options of feature i are option_start[i] .. option_start[i + 1]; the last "feature" is the class prior, which
        has one option or none.
    option_parent : int64 array (n_options,)
        Parent feature, -1 for none, -2 for no table.
    option_row : int64 array (n_options,)
        First row of each option's table.
    trained : uint8 array (n_options,)
    settings : dict
        Fields of effml_training.
    batch_size, n_threads : int
    portable : bool
        Do without special instructions; the result is the same.
    """

    cdef effml_training training
    cdef effml_tables tables
    cdef effml_phases phases
    cdef public object arrays
    cdef const int64_t[::1] n_states, option_start, option_parent, option_row
    cdef const uint8_t[::1] trained
    cdef int64_t[::1] step_count, selected
    cdef double[::1] option_gradient, step_gradient
    cdef char[:, ::1] scratch
    cdef char[::1] gradients
    cdef int32_t[:, ::1] rows
    cdef double[::1] losses
    cdef Py_ssize_t item, n_features, n_tables, batch_size
    cdef int n_threads
    cdef double log_step, log_step_m, log_step_v
    cdef int64_t n_updates

    def __init__(
        self, arrays, n_classes, n_states, option_start, option_parent, option_row, trained, settings, batch_size,
        n_threads, portable=False,
    ):
        self.arrays = arrays
        cdef Py_ssize_t pointers[5]
        for k in range(5):
            pointers[k] = arrays[k].ctypes.data
        self.tables.logits = <void *>pointers[0]
        self.tables.probabilities = <void *>pointers[1]
        self.tables.scores = <void *>pointers[2]
        self.tables.first_moments = <void *>pointers[3]
        self.tables.second_moments = <void *>pointers[4]
        self.tables.n_class = n_classes
        self.tables.width = (n_classes + LANES - 1) // LANES * LANES
        self.item = arrays.itemsize
        self.phases = effml_choose_phases(arrays.itemsize == 8, portable)
        self.set(settings)
        self.n_states, self.option_start = n_states, option_start
        self.option_parent, self.option_row, self.trained = option_parent, option_row, trained
        self.n_features = n_states.shape[0]
        self.n_tables = self.n_features + 1
        self.batch_size, self.n_threads = batch_size, n_threads
        self.step_count = np.zeros(option_parent.shape[0], dtype=np.int64)
        self.selected = np.array(np.asarray(option_start)[: n_states.shape[0] + 1], dtype=np.int64)
        self.option_gradient = np.zeros(option_parent.shape[0])
        self.step_gradient = np.zeros(self.n_tables)
        sizes = [self.n_rows(option) for option in range(option_parent.shape[0])]
        n_rows = max([first + size for first, size in zip(option_row, sizes, strict=True)] + [0])
        if arrays.shape[0] != 5 or arrays.shape[1] < n_rows * n_classes + LANES:
            raise ValueError(f"arrays have shape {arrays.shape}, {n_rows} rows of {n_classes} need more")
        largest = max(sizes + [1]) * n_classes + self.tables.width
        self.scratch = np.zeros((n_threads, largest * self.item), dtype=np.int8)
        self.gradients = np.zeros(batch_size * self.tables.width * self.item, dtype=np.int8)
        self.rows = np.empty((self.n_tables, batch_size), dtype=np.int32)
        self.losses = np.zeros(batch_size)
        self.log_step = log(self.training.scale)
        self.log_step_m = self.log_step_v = 0
        self.n_updates = 0

    def set(self, settings):
        """Set fields of the training struct."""
        self.training = settings

    @property
    def scale(self):
        """The distance of two levels; contrast training moves it."""
        return self.training.scale

    @property
    def option_gradients(self):
        """dLoss/dweight of every option in the last batch."""
        return np.asarray(self.option_gradient)

    @property
    def step_gradients(self):
        """dLoss/dlog scale of every table in the last batch (contrast format)."""
        return np.asarray(self.step_gradient)

    def n_rows(self, Py_ssize_t option):
        """Return the number of rows of an option's table."""
        feature = int(np.searchsorted(np.asarray(self.option_start), option, side="right")) - 1
        if feature >= self.n_features:
            return 1
        parent = self.option_parent[option]
        if parent < -1:
            return 0
        return self.n_states[feature] * (self.n_states[parent] if parent >= 0 else 1)

    cdef void prepare_option(self, Py_ssize_t table, Py_ssize_t option, char *scratch) noexcept nogil:
        cdef int64_t parent = self.option_parent[option]
        cdef Py_ssize_t n_state = 1, n_parent = 1
        if self.trained[option] and parent >= -1:
            if table < self.n_features:
                n_state = self.n_states[table]
                n_parent = self.n_states[parent] if parent >= 0 else 1
            self.phases.prepare(
                &self.training, &self.tables, self.option_row[option], n_state, n_parent, table == self.n_features, scratch
            )

    def prepare(self):
        """Compute the scores of all options from their logits."""
        cdef Py_ssize_t table, option
        for table in prange(self.n_tables, num_threads=self.n_threads, schedule="static", nogil=True):
            for option in range(self.option_start[table], self.option_start[table + 1]):
                self.prepare_option(table, option, &self.scratch[threadid(), 0])

    cdef double update_option(
        self, Py_ssize_t table, Py_ssize_t option, Py_ssize_t n, double rate, char *scratch
    ) noexcept nogil:
        cdef int64_t parent = self.option_parent[option]
        cdef Py_ssize_t n_state = 1, n_parent = 1
        if table < self.n_features:
            n_state = self.n_states[table]
            n_parent = self.n_states[parent] if parent >= 0 else 1
        return self.phases.update(
            &self.training, &self.tables, &self.gradients[0], &self.rows[table, 0], n, self.option_row[option], n_state,
            n_parent, table == self.n_features, rate, <double>self.step_count[option], scratch
        )

    def batch(
        self, const code_t[:, ::1] codes, const int32_t[::1] y, const double[::1] weights, const int64_t[::1] sample,
        Py_ssize_t start, Py_ssize_t stop, const int64_t[::1] selected, double rate, bint score_options,
    ):
        """Train on the rows ``sample[start:stop]`` and return the sum of their losses.

        Weights should add up to 1 over the batch. With rate 0 the gradients of the logits go into `first_moments`.
        """
        cdef Py_ssize_t n = stop - start, s, table, option, width = self.tables.width
        cdef int64_t row
        cdef int thread
        cdef double total = 0, gradient = 0, corrected
        for table in range(self.n_tables):
            if self.option_start[table + 1] > self.option_start[table]:
                self.selected[table] = selected[table]
                if rate > 0:
                    self.step_count[selected[table]] += 1
        with nogil:
            for s in prange(n, num_threads=self.n_threads, schedule="static"):
                thread = threadid()
                row = sample[start + s]
                self.sample_rows(&codes[row, 0], s)
                self.losses[s] = self.phases.sample(
                    &self.training, &self.tables, &self.rows[0, s], self.n_tables, self.batch_size, y[row],
                    weights[start + s], &self.gradients[s * width * self.item], &self.scratch[thread, 0]
                )
            if score_options:
                for table in prange(self.n_features, num_threads=self.n_threads, schedule="static"):
                    self.score_options(table, codes, sample, start, n)
            for table in prange(self.n_tables, num_threads=self.n_threads, schedule="static"):
                thread = threadid()
                if self.is_trained(table):
                    self.step_gradient[table] = self.update_option(
                        table, self.selected[table], n, rate, &self.scratch[thread, 0]
                    )
                    if rate > 0 and self.training.format != 2:
                        self.prepare_option(table, self.selected[table], &self.scratch[thread, 0])
            if rate > 0 and self.training.format == 2:
                for table in range(self.n_tables):
                    gradient += self.step_gradient[table]
                self.n_updates += 1
                self.log_step_m = self.training.beta1 * self.log_step_m + (1 - self.training.beta1) * gradient
                self.log_step_v = self.training.beta2 * self.log_step_v + (1 - self.training.beta2) * gradient * gradient
                corrected = rate * sqrt(1 - pow(self.training.beta2, self.n_updates)) / (
                    1 - pow(self.training.beta1, self.n_updates)
                )
                self.log_step -= corrected * self.log_step_m / (sqrt(self.log_step_v) + self.training.epsilon)
                self.training.scale = exp(self.log_step)
                for table in prange(self.n_tables, num_threads=self.n_threads, schedule="static"):
                    if self.option_start[table + 1] > self.option_start[table]:
                        self.prepare_option(table, self.selected[table], &self.scratch[threadid(), 0])
            for s in range(n):
                total += self.losses[s]
        return total

    cdef bint is_trained(self, Py_ssize_t table) noexcept nogil:
        cdef int64_t option
        if self.option_start[table + 1] == self.option_start[table]:
            return False
        option = self.selected[table]
        return self.trained[option] and self.option_parent[option] >= -1

    cdef void sample_rows(self, const code_t *codes, Py_ssize_t s) noexcept nogil:
        cdef Py_ssize_t table
        cdef int64_t option
        for table in range(self.n_features):
            option = self.selected[table]
            self.rows[table, s] = table_row(
                codes, table, self.option_parent[option], self.option_row[option], &self.n_states[0]
            )
        if self.option_start[self.n_features + 1] > self.option_start[self.n_features]:
            self.rows[self.n_features, s] = <int32_t>self.option_row[self.selected[self.n_features]]
        else:
            self.rows[self.n_features, s] = -1

    cdef void score_options(
        self, Py_ssize_t table, const code_t[:, ::1] codes, const int64_t[::1] sample, Py_ssize_t start, Py_ssize_t n
    ) noexcept nogil:
        """Set dLoss/dweight of every option of a feature; single options need none."""
        cdef Py_ssize_t option, s
        cdef int32_t row
        cdef double total
        if self.option_start[table + 1] - self.option_start[table] < 2:
            return
        for option in range(self.option_start[table], self.option_start[table + 1]):
            total = 0
            for s in range(n):
                row = table_row(
                    &codes[sample[start + s], 0], table, self.option_parent[option], self.option_row[option],
                    &self.n_states[0]
                )
                total = total + self.phases.option(
                    &self.tables, &self.gradients[s * self.tables.width * self.item], &row, 1
                )
            self.option_gradient[option] = total
