"""What methods are, written down a second time, one file per method with the name of the method.

A file has `PUBLISHED`, the values that the method was published with, and `restatement(s, m)`: from the numbers of one
token and the method's settings the loss, its slope in log p_S and its slope in the divergence (`numbers` of
tests/objective/restated.py has the names). Where they are not those of most methods it also has SAMPLES_PER_PROBLEM and
ADVANTAGE. The tests of every method read these files; tests/objective/test_methods.py itself has the older methods.
"""

from importlib import import_module
from pkgutil import iter_modules

FILES = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}
