"""The default law: the one to take when a recipe names none.

It is `kriging`, chosen by `benchmarks/laws.py`: see docs/results/laws.md. The choice
stands here once, so that recipes, methods and the benchmark agree on it; recipes may call it
`default`. `bayes`, `ladder` and `anneal` fit it where a recipe names none; `regmix`, `mixing_laws`
and `olmix` are published methods, with the laws of their papers.
"""

from cuvee.mixtures import registry
from cuvee.mixtures.laws.kriging import Kriging

NAME: str = Kriging.name
registry.register_alias("law", "default", NAME)
