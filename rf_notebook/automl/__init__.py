"""Search spaces and configs, with the names of RapidFire AI's ``automl``."""

from rf_notebook.automl.configs import RFDPOConfig, RFGRPOConfig, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.automl.search import RFGridSearch, RFRandomSearch
from rf_notebook.automl.search_space import List, Range

__all__ = [
    "List",
    "RFDPOConfig",
    "RFGRPOConfig",
    "RFGridSearch",
    "RFLoraConfig",
    "RFModelConfig",
    "RFRandomSearch",
    "RFSFTConfig",
    "Range",
]
