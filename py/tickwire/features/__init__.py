"""Features: the expressions a row is made of, their compilation, and the schema a model is bound to.

A feature is a call: `zscore(ofi(levels=5, window="1s"), window="30s")`. One grammar serves the configuration,
Python and a model's metadata.

`KERNELS` says what each kernel computes; the values come from one C++ code path, live, in replay and
in a data set. Here is no arithmetic: `compile_rows` turns text into the plan that the C++ side runs,
with each distinct sub-expression in it once.

A `window` is a duration, `(t - w, t]` on the instrument's clock, or a count: of samples where an
expression is wrapped, which is sampled once at each book event; else of book events or of trades. A
kernel is warm once its duration has passed since the epoch began (or since the expression it wraps
became warm), or once its count is full. No row leaves before all are.
"""

from tickwire.features.grammar import Duration, Expression, ExpressionError, parse
from tickwire.features.plan import Plan, compile_rows, reach
from tickwire.features.schema import Schema
from tickwire.features.table import KERNELS, Kernel, Parameter

__all__ = [
    "KERNELS",
    "Duration",
    "Expression",
    "ExpressionError",
    "Kernel",
    "Parameter",
    "Plan",
    "Schema",
    "compile_rows",
    "parse",
    "reach",
]
