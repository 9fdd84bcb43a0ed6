"""Which instruments find the layer a fact was planted in, and which can tell storage from processing."""

from palimpsest.world.certificate.certificate import Certificate
from palimpsest.world.certificate.certify import certify
from palimpsest.world.certificate.instrument import Evidence, Instrument, Reading
from palimpsest.world.certificate.instruments import instruments

__all__ = ["Certificate", "Evidence", "Instrument", "Reading", "certify", "instruments"]
