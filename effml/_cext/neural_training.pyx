"""Loops of network training over all weights: one Adam step with a clip, one quantisation (see neural_training.h)."""

ctypedef fused real_t:
    float
    double

cdef extern from "neural_training.h" nogil:
    ctypedef struct effml_training_functions:
        void (*adam)(float *, const float *, float *, float *, Py_ssize_t, float, float, float, float, float, float, float) noexcept nogil
        void (*levels)(const float *, Py_ssize_t, float, float, float *) noexcept nogil

    effml_training_functions effml_choose_training_functions(int level)
    void effml_adam_double(double *, const double *, double *, double *, Py_ssize_t, double, double, double, double, double, double, double) noexcept
    void effml_levels_double(const double *, Py_ssize_t, double, double, double *) noexcept


def adam_step(
    real_t[::1] value, const real_t[::1] gradient, real_t[::1] first, real_t[::1] second, double rate,
    double one_less_beta1, double one_less_beta2, double epsilon, double decay, double low, double high, int level=2,
):
    """Change value and moments in place: Adam on ``gradient + decay * value``, then the clip to [low, high]."""
    cdef Py_ssize_t n = value.shape[0]
    cdef effml_training_functions functions = effml_choose_training_functions(level)
    if n == 0:
        return
    with nogil:
        if real_t is float:
            functions.adam(
                &value[0], &gradient[0], &first[0], &second[0], n, <float>rate, <float>one_less_beta1,
                <float>one_less_beta2, <float>epsilon, <float>decay, <float>low, <float>high,
            )
        else:
            effml_adam_double(
                &value[0], &gradient[0], &first[0], &second[0], n, rate, one_less_beta1, one_less_beta2, epsilon,
                decay, low, high,
            )


def nearest_levels(const real_t[::1] weights, int top, double factor, real_t[::1] out, int level=2):
    """Set `out` to `factor` times the odd integers ``2u - top`` next to ``top * weights``."""
    cdef Py_ssize_t n = weights.shape[0]
    cdef effml_training_functions functions = effml_choose_training_functions(level)
    if n == 0:
        return
    with nogil:
        if real_t is float:
            functions.levels(&weights[0], n, top, <float>factor, &out[0])
        else:
            effml_levels_double(&weights[0], n, top, factor, &out[0])
