"""What a result was computed by: versions of the mathematics and of training, raised by hand.

A comment that is corrected, a file that moves or a package that is updated voids no evidence. What
does is a change of what is computed, and a test forces it to be said: the outputs of every law,
search, method and controller, and the losses of a proxy, are kept with the versions that they were
made by (`tests/test_versions.py`). Before there were versions a result named a hash of all source
text and packages. Version 1 is written as the hash of the last commit of that time, 404a3ce, with
the packages that its `infra/constraints.txt` pins, so that what it computed stands; of any other
hash it is not known what computed it, so that it is made and approved anew.
"""

MATHS_VERSION = 8  # raise it when the same runs give another recommendation
TRAINING_VERSION = 1  # raise it when the same spec gives another result, losses or scores
FIRST = (  # how version 1 is written: of the mathematics alone, and with that of training
    "a67ebfe31e3f701f7b2dc6c3291fbd1a77976f49cfb1b1272b3656111fe63880",
    "f4832610b52492839635ace9470290de4635b7ea9f4cb8d846dc71fa14146776",  # torch 2.13.0+cpu
)


def code_version() -> str:
    """The version of what a recommendation is computed by, as results name it."""
    return FIRST[0] if MATHS_VERSION == 1 else f"maths {MATHS_VERSION}"


def study_version() -> str:
    """The same of everything that trains, scores and fits."""
    first = MATHS_VERSION == TRAINING_VERSION == 1
    return FIRST[1] if first else f"maths {MATHS_VERSION}, training {TRAINING_VERSION}"
