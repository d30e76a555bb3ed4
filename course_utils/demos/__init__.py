"""The interactive demos of the course; each is a `LivePicture`."""

from .autoregressive import mask_explorer, sampling_explorer
from .codes import code_editor, codebook_browser
from .commitment import commitment_explorer
from .conditional import completion_explorer, condition_explorer
from .drawing import to_pil
from .field import receptive_field_explorer
from .latent import latent_explorer
from .live import LivePicture, check_moves
from .painting import painting_explorer
from .prior import prior_explorer

__all__ = [
    "LivePicture",
    "check_moves",
    "code_editor",
    "codebook_browser",
    "commitment_explorer",
    "completion_explorer",
    "condition_explorer",
    "latent_explorer",
    "mask_explorer",
    "painting_explorer",
    "prior_explorer",
    "receptive_field_explorer",
    "sampling_explorer",
    "to_pil",
]
