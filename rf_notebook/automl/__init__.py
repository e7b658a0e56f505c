"""Search spaces and configs, with the names of RapidFire AI's ``automl``."""

from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import (
    RFDPOConfig,
    RFGRPOConfig,
    RFIA3Config,
    RFKTOConfig,
    RFLNTuningConfig,
    RFLoHaConfig,
    RFLoKrConfig,
    RFLoraConfig,
    RFOFTConfig,
    RFPrefixTuningConfig,
    RFPromptEncoderConfig,
    RFPromptTuningConfig,
    RFRLOOConfig,
    RFSFTConfig,
    RFVeraConfig,
)
from rf_notebook.automl.optuna_search import RFOptuna
from rf_notebook.automl.search import RFGridSearch, RFRandomSearch
from rf_notebook.automl.search_space import List, Range

__all__ = [
    "List",
    "RFDPOConfig",
    "RFGRPOConfig",
    "RFGridSearch",
    "RFIA3Config",
    "RFKTOConfig",
    "RFLNTuningConfig",
    "RFLoHaConfig",
    "RFLoKrConfig",
    "RFLoraConfig",
    "RFModelConfig",
    "RFOFTConfig",
    "RFOptuna",
    "RFPrefixTuningConfig",
    "RFPromptEncoderConfig",
    "RFPromptTuningConfig",
    "RFRLOOConfig",
    "RFRandomSearch",
    "RFSFTConfig",
    "RFVeraConfig",
    "Range",
]
