"""Search spaces and configs, with the names of RapidFire AI's ``automl``."""

from rf_notebook.automl.configs import (
    RFDPOConfig,
    RFGRPOConfig,
    RFIA3Config,
    RFLNTuningConfig,
    RFLoHaConfig,
    RFLoKrConfig,
    RFLoraConfig,
    RFModelConfig,
    RFOFTConfig,
    RFPrefixTuningConfig,
    RFPromptEncoderConfig,
    RFPromptTuningConfig,
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
    "RFRandomSearch",
    "RFSFTConfig",
    "RFVeraConfig",
    "Range",
]
