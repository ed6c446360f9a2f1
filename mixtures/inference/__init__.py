"""From runs to an answer: data set, diagnostics, optimum, intervals, evidence grade, warnings."""
