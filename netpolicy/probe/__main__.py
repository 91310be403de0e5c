"""``python3 -m netpolicy.probe TARGET...``: see `netpolicy.probe.attempt`."""

from netpolicy.probe.attempt import leave

leave()
