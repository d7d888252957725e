"""The statistics on a CUDA device: arrays stay there, and only their summaries come to the host.

Sums, counts, extremes, histograms, sketches and exact quantiles are the same to the bit as the
CPU's; moments above the first, entropies and sums of exponentials agree within rounding, because
the order of additions within a block of 2,048 values and the last bit of ``exp`` and ``log``
differ. All orders are fixed by the values' places, so no result depends on the launch.
"""
