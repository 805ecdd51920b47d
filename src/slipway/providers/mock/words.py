"""The mock's vocabulary: text that resembles English, the same for the same seed, with characters
of two to four bytes.
"""

import random
import re

VOCABULARY: tuple[str, ...] = tuple(
    # One literal for each word would fill a page
    """the a harbour ship water answer question model system document page service team customer
    order value report network policy reader result engine signal window morning local small large
    quick steady clear careful common public early late moves keeps gives shows needs holds
    brings follows explains returns between after before under with without from into and but
    because where when café naïve 数据 Übersicht façade 🚢""".split()  # noqa: SIM905
)
