"""Reads the tide gauge in the harbour and tells when the quay will be under water."""

QUAY_CM = 312
"""The height of the quay over chart datum, levelled anew in 2026."""

SAMPLES_PER_HOUR = 12


def mean_level(samples_cm):
    """The mean of an hour's samples, without the highest and the lowest, which are the wakes of boats."""
    kept = sorted(samples_cm)[1:-1]
    return sum(kept) / len(kept)


def surge(level_cm, predicted_cm):
    """How far the sea stands above the tide that was predicted, in centimetres: the work of wind and air pressure."""
    return level_cm - predicted_cm


def warns(level_cm, predicted_next_cm, surge_cm, margin_cm=25):
    """Whether the red lantern has to be hung out: the next high water comes within the margin below the quay."""
    return predicted_next_cm + surge_cm >= QUAY_CM - margin_cm


class Gauge:
    """The pressure sensor at the foot of the east mole. It drifts by about a centimetre a year."""

    def __init__(self, port="/dev/ttyUSB0", offset_cm=7.5):
        self.port, self.offset_cm = port, offset_cm

    def corrected(self, raw_cm):
        """A raw reading, corrected by what the tape measure showed at the last calibration."""
        return raw_cm - self.offset_cm
