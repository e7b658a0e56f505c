"""peft's kinds of adapters: each a class with the arguments of peft's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rf_notebook.automl.library_configs import ArgumentsConfig


class AdapterConfig(ArgumentsConfig):
    """Arguments of one of peft's kinds of adapters; each may be a List or a Range."""

    peft_type: ClassVar[str]
    """Peft's name of the kind."""

    def __init_subclass__(cls, *, kind: str, wraps: str) -> None:
        """Another kind.

        Args:
            kind: Its ``peft_type``.
            wraps: The class whose arguments these are, as in peft.
        """
        cls.peft_type, cls.wraps = kind, f"peft.{wraps}"
        ADAPTER_CONFIGS[kind] = cls


#: By peft_type.
ADAPTER_CONFIGS: dict[str, type[AdapterConfig]] = {}
#: The other kinds that peft has, and why they do not train here.
REFUSED_ADAPTERS = {
    "ADAMSS": "peft seeds the process's random stream while it makes one, which other runs and cells draw from",
    "ADAPTION_PROMPT": "its model lacks what trl reads from a forward pass",
    "CPT": "its loss needs logits, which trl's SFT does not keep",
    "MULTITASK_PROMPT_TUNING": "its batches need task_ids, which trl's do not have",
    "POLY": "its batches need task_ids, which trl's do not have",
    "XLORA": "it mixes adapters that are trained already",
}


class RFLoraConfig(AdapterConfig, kind="LORA", wraps="LoraConfig"):
    """Arguments of ``peft.LoraConfig``."""


class RFAdaLoraConfig(AdapterConfig, kind="ADALORA", wraps="AdaLoraConfig"):
    """Arguments of ``peft.AdaLoraConfig``."""


class RFBeftConfig(AdapterConfig, kind="BEFT", wraps="BeftConfig"):
    """Arguments of ``peft.BeftConfig``."""


class RFBOFTConfig(AdapterConfig, kind="BOFT", wraps="BOFTConfig"):
    """Arguments of ``peft.BOFTConfig``."""


class RFC3AConfig(AdapterConfig, kind="C3A", wraps="C3AConfig"):
    """Arguments of ``peft.C3AConfig``."""


class RFCartridgeConfig(AdapterConfig, kind="CARTRIDGE", wraps="CartridgeConfig"):
    """Arguments of ``peft.CartridgeConfig``."""


class RFDeftConfig(AdapterConfig, kind="DEFT", wraps="DeftConfig"):
    """Arguments of ``peft.DeftConfig``."""


class RFDeloraConfig(AdapterConfig, kind="DELORA", wraps="DeloraConfig"):
    """Arguments of ``peft.DeloraConfig``."""


class RFFourierFTConfig(AdapterConfig, kind="FOURIERFT", wraps="FourierFTConfig"):
    """Arguments of ``peft.FourierFTConfig``."""


class RFFrodConfig(AdapterConfig, kind="FROD", wraps="FrodConfig"):
    """Arguments of ``peft.FrodConfig``."""


class RFGloraConfig(AdapterConfig, kind="GLORA", wraps="GloraConfig"):
    """Arguments of ``peft.GloraConfig``."""


class RFGraloraConfig(AdapterConfig, kind="GRALORA", wraps="GraloraConfig"):
    """Arguments of ``peft.GraloraConfig``."""


class RFHiraConfig(AdapterConfig, kind="HIRA", wraps="HiraConfig"):
    """Arguments of ``peft.HiraConfig``."""


class RFHRAConfig(AdapterConfig, kind="HRA", wraps="HRAConfig"):
    """Arguments of ``peft.HRAConfig``."""


class RFIA3Config(AdapterConfig, kind="IA3", wraps="IA3Config"):
    """Arguments of ``peft.IA3Config``."""


class RFLilyConfig(AdapterConfig, kind="LILY", wraps="LilyConfig"):
    """Arguments of ``peft.LilyConfig``."""


class RFLNTuningConfig(AdapterConfig, kind="LN_TUNING", wraps="LNTuningConfig"):
    """Arguments of ``peft.LNTuningConfig``."""


class RFLoHaConfig(AdapterConfig, kind="LOHA", wraps="LoHaConfig"):
    """Arguments of ``peft.LoHaConfig``."""


class RFLoKrConfig(AdapterConfig, kind="LOKR", wraps="LoKrConfig"):
    """Arguments of ``peft.LoKrConfig``."""


class RFMissConfig(AdapterConfig, kind="MISS", wraps="MissConfig"):
    """Arguments of ``peft.MissConfig``."""


class RFOFTConfig(AdapterConfig, kind="OFT", wraps="OFTConfig"):
    """Arguments of ``peft.OFTConfig``."""


class RFOSFConfig(AdapterConfig, kind="OSF", wraps="OSFConfig"):
    """Arguments of ``peft.OSFConfig``."""


class RFPeanutConfig(AdapterConfig, kind="PEANUT", wraps="PeanutConfig"):
    """Arguments of ``peft.PeanutConfig``."""


class RFPrefixTuningConfig(AdapterConfig, kind="PREFIX_TUNING", wraps="PrefixTuningConfig"):
    """Arguments of ``peft.PrefixTuningConfig``."""


class RFPromptEncoderConfig(AdapterConfig, kind="P_TUNING", wraps="PromptEncoderConfig"):
    """Arguments of ``peft.PromptEncoderConfig``."""


class RFPromptTuningConfig(AdapterConfig, kind="PROMPT_TUNING", wraps="PromptTuningConfig"):
    """Arguments of ``peft.PromptTuningConfig``."""


class RFPsoftConfig(AdapterConfig, kind="PSOFT", wraps="PsoftConfig"):
    """Arguments of ``peft.PsoftConfig``."""


class RFPveraConfig(AdapterConfig, kind="PVERA", wraps="PveraConfig"):
    """Arguments of ``peft.PveraConfig``."""


class RFRandLoraConfig(AdapterConfig, kind="RANDLORA", wraps="RandLoraConfig"):
    """Arguments of ``peft.RandLoraConfig``."""


class RFRoadConfig(AdapterConfig, kind="ROAD", wraps="RoadConfig"):
    """Arguments of ``peft.RoadConfig``."""


class RFShadowConfig(AdapterConfig, kind="SHADOW", wraps="ShadowConfig"):
    """Arguments of ``peft.ShadowConfig``."""


class RFShiraConfig(AdapterConfig, kind="SHIRA", wraps="ShiraConfig"):
    """Arguments of ``peft.ShiraConfig``."""


class RFSupertuningConfig(AdapterConfig, kind="SUPERTUNING", wraps="SupertuningConfig"):
    """Arguments of ``peft.SupertuningConfig``."""


class RFTinyLoraConfig(AdapterConfig, kind="TINYLORA", wraps="TinyLoraConfig"):
    """Arguments of ``peft.TinyLoraConfig``."""


class RFTrainableTokensConfig(
    AdapterConfig, kind="TRAINABLE_TOKENS", wraps="TrainableTokensConfig"
):
    """Arguments of ``peft.TrainableTokensConfig``."""


class RFUniLoraConfig(AdapterConfig, kind="UNILORA", wraps="UniLoraConfig"):
    """Arguments of ``peft.UniLoraConfig``."""


class RFVBLoRAConfig(AdapterConfig, kind="VBLORA", wraps="VBLoRAConfig"):
    """Arguments of ``peft.VBLoRAConfig``."""


class RFVeraConfig(AdapterConfig, kind="VERA", wraps="VeraConfig"):
    """Arguments of ``peft.VeraConfig``."""


class RFWaveFTConfig(AdapterConfig, kind="WAVEFT", wraps="WaveFTConfig"):
    """Arguments of ``peft.WaveFTConfig``."""


def adapter_config_of(peft: Mapping[str, Any] | None) -> type[AdapterConfig]:
    """The class of a run's adapter arguments, which name their kind unless it is LoRA."""
    return ADAPTER_CONFIGS[(peft or {}).get("peft_type", "LORA")]
