"""How compress says that it cannot do what was asked."""

from slipway.errors import SettingsError


def refused(sentence: str) -> SettingsError:
    """The error of one sentence, which names the option at fault and the fix."""
    return SettingsError([sentence])
