"""ms-swift: data sets with numbers of samples.

`arguments.yaml` holds the `dataset` list of `swift pt --config`, each `PATH#N`: N rows of a file,
in whole passes and a random part of one more, joined and shuffled, for one epoch. Rows are
documents.
Interleaving by probabilities is not used: its seed is one for all, and it ends with the first
source that runs out. ms-swift finds the text under its own names for it (`text`, `content`,
`response`, ...), and one list of other names (`columns`) holds for all files.

Source: modelscope/ms-swift, swift/dataset/dataset_syntax.py at 0f6de2f (`DatasetSyntax.parse`),
swift/dataset/utils.py at 05a12dc (`sample_dataset`), swift/dataset/loader.py at 02c2581.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, ExportSpec
from cuvee.tasks.export.documents import DocumentRows, file_rows
from cuvee.tasks.export.literal import yaml_text

RESPONSE = "response"  # the column of what is trained on


@register(KIND)
@dataclass(frozen=True)
class MsSwift(DocumentRows):
    """Data sets for ms-swift.

    Take it for pretraining with ms-swift on plain files.

    Attributes:
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str] = "ms_swift"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        counts, columns = spec.documents.rounded(), {}
        for name in counts:
            read = file_rows("ms-swift", spec, name, self.field)
            if "data_files" not in read.source:
                raise ExportError(
                    f"ms-swift cannot be told the split and revision of {spec.path(name)}: name a "
                    f"file of {name} in export.paths, or choose huggingface"
                )
            columns[read.field] = RESPONSE
        arguments: dict[str, Any] = {
            "dataset": [f"{spec.path(name)}#{count}" for name, count in counts.items()],
            "columns": json.dumps(columns),
            "split_dataset_ratio": 0.0,
            "num_train_epochs": 1,
            "data_seed": spec.seed,
            "seed": spec.seed,
        }
        arguments |= {"max_length": spec.sequence} if spec.sequence else {}
        return {"arguments.yaml": yaml_text(arguments)}
