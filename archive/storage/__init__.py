# SPDX-License-Identifier: Apache-2.0
"""Where blobs, records and the journal are kept: one protocol, several back ends."""
