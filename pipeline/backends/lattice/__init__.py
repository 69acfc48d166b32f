"""The dense CRF's engines: one field, one set of parameters (``parameters``), three ways to infer it.

    cpu        C++ with SIMD (src/), the default
    tensor     torch over whole batches, on CUDA where there is one, differentiable
    reference  pydensecrf, which the others are held against

``permutohedral`` is the lattice of ``tensor``; ``dcrf`` and ``dcrf_utils`` mirror ``pydensecrf.densecrf`` and
``pydensecrf.utils`` on the C++ engine.
"""
