"""From what the data loader yields to what the backbone takes. Imported when first built, too."""

from vito_mm.registry import MODELS, register_lazily

register_lazily(MODELS, 'ViewPreprocessor', 'vito_mm.models.preprocessors.view_preprocessor')

__all__: list[str] = []
